//! Packets of many machines, seen from one place.

mod cli;
mod libraries;
mod logging;
mod metrics;
mod settings;
mod signals;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info};

use metrics::{Figures, Metrics, MetricsFile, Page, Readiness, Server, Site};
use settings::{CaptureSettings, CollectSettings, CommonSettings, InputSettings, RelaySettings, Settings};
use signals::Stop;

/// For handing over what has been captured, once it is time to stop.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let flags = match cli::parse(std::env::args_os()) {
        Ok(flags) => flags,
        Err(answer) => {
            // Whoever asked for help may have gone away.
            _ = answer.print();
            return if answer.use_stderr() { settings::EXIT_CODE.into() } else { ExitCode::SUCCESS };
        }
    };
    let host_name =
        hostname::get().map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into());
    let settings = match Settings::load(std::env::vars_os(), &flags, &host_name) {
        Ok(settings) => settings,
        Err(errors) => {
            _ = writeln!(io::stderr(), "{errors}");
            return settings::EXIT_CODE.into();
        }
    };
    logging::start(settings.common().log.clone());
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    let common = settings.common();
    let server = common.metrics_address.as_ref().map(Server::bind).transpose()?;
    let stop = Stop::new()?;
    signals::install(stop.clone(), GRACE, Arc::new(|| "nothing".to_owned()))?;

    let metrics = Arc::new(Metrics::new(Arc::new(|_| {})));
    let _file = match common.metrics_file.clone() {
        Some(path) => Some(MetricsFile::start(path, Arc::clone(&metrics))?),
        None => None,
    };
    let readiness = Readiness::default();
    if let Some(server) = server {
        info!(addresses = ?server.addresses(), "serving metrics");
        let page = Page { mode: settings.mode(), figures: Arc::new(Figures::default) };
        server.start(Site { metrics, page, readiness: readiness.clone() })?;
    }

    match &settings {
        Settings::Capture(settings) => tell_capture(settings),
        Settings::Collect(settings) => tell_collect(settings),
        Settings::Observe(settings) => tell_input(&settings.input),
    }
    tell_common(common);
    readiness.set(true);
    stop.wait_timeout(common.max_duration.unwrap_or(Duration::MAX));
    info!(told_to_stop = stop.is_set(), "ending");
    Ok(())
}

fn tell_capture(settings: &CaptureSettings) {
    let CaptureSettings { input, source_name, relay, common: _ } = settings;
    tell_input(input);
    let RelaySettings { endpoint, buffer, batch, compression } = relay;
    debug!(source_name, %endpoint, buffer, ?batch, ?compression, "captured packets go to the collector");
}

fn tell_collect(settings: &CollectSettings) {
    let CollectSettings { endpoints, output, format, merge_window, exit_on_end, common: _ } = settings;
    debug!(?endpoints, ?output, ?format, ?merge_window, exit_on_end, "collected packets go to the output");
}

fn tell_input(settings: &InputSettings) {
    let InputSettings { input, filter, snaplen, buffer_size, promiscuous } = settings;
    debug!(?input, filter, snaplen, buffer_size, promiscuous, "packets come from the input");
}

fn tell_common(settings: &CommonSettings) {
    let CommonSettings { max_packets, max_duration, observers, .. } = settings;
    debug!(max_packets, ?max_duration, ?observers, "packets are measured");
}
