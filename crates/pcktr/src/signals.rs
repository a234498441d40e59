//! Stopping: because a signal asks for it, or because the work is done.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{exit, signal_name};
use tracing::{error, info};

pub(crate) use pipeline::Stop;

/// What is not handed over yet, in words for the log, such as "3 batches, 700 KiB". It is called when the program has
/// hung, so it must not wait for anybody.
pub(crate) type Unfinished = Arc<dyn Fn() -> String + Send + Sync>;

/// Lets SIGINT and SIGTERM set `stop`. The program then has `grace` to hand over what it has; after that, or at a second
/// signal, it ends at once.
///
/// # Errors
///
/// When a handler can't be installed, or the thread that waits for signals can't be started.
pub(crate) fn install(stop: Stop, grace: Duration, unfinished: Unfinished) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let end = Arc::new(move |why: Ending| end_at_once(why, &unfinished));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        watch(signals.forever(), &stop, grace, end);
    })?;
    Ok(())
}

/// Waits for `grace`, then ends the program at once: for who has set `stop` without a signal.
pub(crate) fn end_after(grace: Duration, unfinished: &Unfinished) {
    thread::sleep(grace);
    end_at_once(Ending::Deadline, unfinished);
}

/// Why the program ends without having finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It was told to stop again.
    SecondSignal,
    /// It took too long to stop.
    Deadline,
}

/// Follows `signals`: the first sets `stop`, and gives `grace` until the end; the second is the end.
fn watch(
    signals: impl IntoIterator<Item = i32>,
    stop: &Stop,
    grace: Duration,
    end: Arc<dyn Fn(Ending) + Send + Sync>,
) {
    let mut signals = signals.into_iter();
    let Some(first) = signals.next() else { return };
    stop.set();

    let at_deadline = Arc::clone(&end);
    let watchdog = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        thread::sleep(grace);
        at_deadline(Ending::Deadline);
    });
    if let Err(error) = watchdog {
        // There is still the second signal.
        error!(%error, "no thread to end the program if it does not stop by itself");
    }
    // Said last: standard error may be a full pipe that nobody reads.
    info!(signal = signal_name(first), "stopping");
    if signals.next().is_some() {
        end(Ending::SecondSignal);
    }
}

/// Says what is lost, and ends the program, whatever else hangs.
fn end_at_once(why: Ending, unfinished: &Unfinished) {
    // Standard error may be a full pipe that nobody reads, and `unfinished` not as quick as it promises: so another
    // thread talks, and this one does not wait for long.
    let unfinished = Arc::clone(unfinished);
    let (said, wait) = mpsc::channel();
    _ = thread::Builder::new().name("last-words".to_owned()).spawn(move || {
        let unfinished = unfinished();
        match why {
            Ending::SecondSignal => error!(unfinished, "told to stop again: ending without handing over"),
            Ending::Deadline => error!(unfinished, "took too long to stop: ending without handing over"),
        }
        _ = said.send(());
    });
    _ = wait.recv_timeout(Duration::from_secs(1));
    // Not `std::process::exit`, which first runs what the libraries want done at exit, and may wait for them.
    exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// What [`watch`] does with `signals`, one after the other, in the order it does it.
    fn check(signals: &[i32], grace: Duration, stops: bool, expected: Option<Ending>) {
        let stop = Stop::new();
        let (tell, endings) = mpsc::channel();
        watch(signals.to_vec(), &stop, grace, Arc::new(move |why| _ = tell.send(why)));
        assert_eq!(stop.is_set(), stops);
        let ending = if grace == LONG { endings.try_recv().ok() } else { endings.recv().ok() };
        assert_eq!(ending, expected);
    }

    #[test]
    fn signals() {
        check(&[], LONG, false, None);
        check(&[SIGTERM], LONG, true, None);
        check(&[SIGINT, SIGINT], LONG, true, Some(Ending::SecondSignal));
        check(&[SIGTERM], Duration::ZERO, true, Some(Ending::Deadline));
    }

    #[test]
    fn a_real_signal_arrives() {
        let stop = Stop::new();
        install(stop.clone(), LONG, Arc::new(String::new)).unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(stop.wait_timeout(LONG));
    }
}
