//! The log, on standard error.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging what passes `filter`.
pub(crate) fn start(filter: Targets) {
    // <https://no-color.org>
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let colour = wanted && io::stderr().is_terminal();
    // It fails only if there is a subscriber already.
    _ = subscriber(filter, colour, io::stderr).try_init();
}

fn subscriber<W>(filter: Targets, colour: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colour)
        // Otherwise a failed write is reported with `eprintln!`, which panics if standard error is closed.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(lines).with(filter)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn lines_are_filtered_and_uncoloured() {
        let lines = Lines::default();
        let writer = lines.clone();
        let filter = "warn,source=debug".parse().unwrap();
        tracing::subscriber::with_default(subscriber(filter, false, move || writer.clone()), || {
            tracing::info!("not this one");
            tracing::warn!(device = "eth0", "this one");
            tracing::debug!(target: "source::device", "and this one");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let ends: Vec<_> =
            text.lines().filter_map(|line| line.split_once("Z ")).map(|(_, end)| end).collect();
        assert_eq!(
            ends,
            [" WARN pcktr::logging::tests: this one device=\"eth0\"", "DEBUG source::device: and this one"]
        );
    }

    #[test]
    fn write_errors_are_ignored() {
        let filter = "info".parse().unwrap();
        tracing::subscriber::with_default(subscriber(filter, false, || Broken), || {
            tracing::error!("not written");
        });
    }
}
