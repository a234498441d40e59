//! SIGINT and SIGTERM, and the time limit for stopping.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use pipeline::{PipelineHandle, Stop};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{exit, signal_name};
use tracing::{error, info};

/// Makes SIGINT and SIGTERM request the stop. The program exits after `grace`, or at a second signal, even if it has not
/// finished.
///
/// # Errors
///
/// A signal handler cannot be installed, or the thread cannot be created.
pub(crate) fn install(stop: Stop, grace: Duration, handle: Arc<dyn PipelineHandle>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let exit = Arc::new(move |reason| exit_now(reason, &handle));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        watch(signals.forever(), &stop, grace, exit);
    })?;
    Ok(())
}

/// Exits after `grace`; for a stop that was not requested by a signal.
pub(crate) fn exit_after(grace: Duration, handle: &Arc<dyn PipelineHandle>) {
    thread::sleep(grace);
    exit_now(ExitReason::Timeout, handle);
}

/// Why the program exits before it has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExitReason {
    /// There was a second signal.
    SecondSignal,
    /// Stopping took too long.
    Timeout,
}

/// Handles `signals`: the first requests the stop and starts the time limit, the second exits.
fn watch(
    signals: impl IntoIterator<Item = i32>,
    stop: &Stop,
    grace: Duration,
    exit: Arc<dyn Fn(ExitReason) + Send + Sync>,
) {
    let mut signals = signals.into_iter();
    let Some(first) = signals.next() else { return };
    stop.set();

    let at_timeout = Arc::clone(&exit);
    let watchdog = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        thread::sleep(grace);
        at_timeout(ExitReason::Timeout);
    });
    if let Err(error) = watchdog {
        // A second signal still ends the program.
        error!(%error, "cannot create a thread to limit the time for stopping");
    }
    // Logged last, because standard error may be a pipe that is full and not read.
    info!(signal = signal_name(first), "stopping");
    if signals.next().is_some() {
        exit(ExitReason::SecondSignal);
    }
}

/// Logs what is lost and exits, whatever else hangs.
fn exit_now(reason: ExitReason, handle: &Arc<dyn PipelineHandle>) {
    // Standard error may be a pipe that is full and not read. So another thread writes the log, and this one waits for it
    // only briefly.
    let handle = Arc::clone(handle);
    let (logged, wait) = mpsc::channel();
    _ = thread::Builder::new().name("last-log".to_owned()).spawn(move || {
        let unfinished = handle.unfinished();
        match reason {
            ExitReason::SecondSignal => error!(unfinished, "second signal: exiting without draining"),
            ExitReason::Timeout => error!(unfinished, "shutdown timed out: exiting without draining"),
        }
        _ = logged.send(());
    });
    _ = wait.recv_timeout(Duration::from_secs(1));
    // Unlike `std::process::exit`, this does not run exit handlers of libraries, which may block.
    exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// A pipeline without figures.
    struct Idle;

    impl PipelineHandle for Idle {
        fn register_metrics(&self, _: &prometheus::Registry) -> prometheus::Result<()> {
            Ok(())
        }

        fn write_tables(&self, _: &mut metrics::Exposition) {}

        fn totals(&self) -> pipeline::Totals {
            pipeline::Totals::default()
        }

        fn unfinished(&self) -> String {
            "nothing".to_owned()
        }
    }

    /// Checks whether `signals` request the stop, and whether they end the program.
    fn check(signals: &[i32], grace: Duration, stops: bool, expected: Option<ExitReason>) {
        let stop = Stop::new();
        let (send, exits) = mpsc::channel();
        watch(signals.to_vec(), &stop, grace, Arc::new(move |reason| _ = send.send(reason)));
        assert_eq!(stop.is_set(), stops);
        let exit = if grace == LONG { exits.try_recv().ok() } else { exits.recv().ok() };
        assert_eq!(exit, expected);
    }

    #[test]
    fn signals() {
        check(&[], LONG, false, None);
        check(&[SIGTERM], LONG, true, None);
        check(&[SIGINT, SIGINT], LONG, true, Some(ExitReason::SecondSignal));
        check(&[SIGTERM], Duration::ZERO, true, Some(ExitReason::Timeout));
    }

    #[test]
    fn raised_signal_requests_the_stop() {
        let stop = Stop::new();
        install(stop.clone(), LONG, Arc::new(Idle)).unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(stop.wait_timeout(LONG));
    }
}
