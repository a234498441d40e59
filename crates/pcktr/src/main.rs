//! `pcktr` captures packets, relays them to a collector, merges them into one stream, and measures them.

mod cli;
mod libraries;
mod logging;
mod settings;
mod signals;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pipeline::{Capture, CaptureError, Collect, Ended, PipelineHandle, Stop};
use prometheus::Registry;
use tracing::{error, info};
use web::{Metrics, MetricsFile, Page, Readiness, Server, Site, Status, WebConfig, WebConfigError};

use settings::{ModeSettings, ProgramSettings, Settings};

/// The time limit for sending or writing what is left after the stop is requested.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let flags = match cli::parse(std::env::args_os()) {
        Ok(flags) => flags,
        Err(answer) => {
            // Standard output may be closed.
            _ = answer.print();
            return if answer.use_stderr() { settings::EXIT_CODE.into() } else { ExitCode::SUCCESS };
        }
    };
    let uname = rustix::system::uname();
    let settings = match Settings::load(std::env::vars_os(), &flags, &uname.nodename().to_string_lossy()) {
        Ok(settings) => settings,
        Err(errors) => {
            _ = writeln!(io::stderr(), "{errors}");
            return settings::EXIT_CODE.into();
        }
    };
    libraries::tune_allocator();
    logging::start(settings.program.log.clone());
    match run(&settings) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Badly) => ExitCode::FAILURE,
        Err(error) => {
            error!("{error:#}");
            if is_setting(&error) { settings::EXIT_CODE.into() } else { ExitCode::FAILURE }
        }
    }
}

/// Whether an error means that the settings are wrong rather than the host.
fn is_setting(error: &anyhow::Error) -> bool {
    error.is::<WebConfigError>() || error.downcast_ref::<CaptureError>().is_some_and(CaptureError::is_setting)
}

/// Opens everything, then runs the mode to its end.
fn run(settings: &Settings) -> anyhow::Result<Ended> {
    let Settings { mode, program } = settings;
    let web_config = program.web_config_file.as_deref().map(WebConfig::load).transpose()?;
    // The port is bound first, so that a port in use is reported before anything is captured.
    let server =
        program.metrics_address.as_ref().map(|address| Server::bind(address, web_config)).transpose()?;
    let stop = Stop::new();
    let pipeline = Pipeline::open(mode, &stop)?;
    let handle = pipeline.handle();
    signals::install(stop.clone(), GRACE, Arc::clone(&handle))?;
    // Dropped, and so written for the last time, after the pipeline has ended.
    let _file = serve(server, mode, program, &handle, &stop)?;
    if let Some(limit) = program.max_duration {
        thread::Builder::new().name("max-duration".into()).spawn(move || {
            if !stop.wait_timeout(limit) {
                stop.set();
                signals::exit_after(GRACE, &handle);
            }
        })?;
    }
    pipeline.run()
}

/// Serves the metrics, and writes them to the metrics file.
fn serve(
    server: Option<Server>,
    mode: &ModeSettings,
    program: &ProgramSettings,
    handle: &Arc<dyn PipelineHandle>,
    stop: &Stop,
) -> anyhow::Result<Option<MetricsFile>> {
    let registry = Registry::new();
    web::register_process(&registry, [("libpcap", libraries::libpcap()), ("libzmq", libraries::libzmq())])?;
    handle.register_metrics(&registry)?;
    if let Some(server) = &server {
        server.register_metrics(&registry)?;
    }
    let tables = Arc::clone(handle);
    let metrics = Arc::new(Metrics::new(registry, move |out| tables.write_tables(out)));
    let file = program.metrics_file.clone().map(|path| MetricsFile::start(path, Arc::clone(&metrics)));
    if let Some(server) = server {
        info!(addresses = ?server.addresses(), "serving metrics");
        let totals = Arc::clone(handle);
        let page = Page::new(mode.mode().as_str(), move || {
            let pipeline::Totals { packets, dropped, lost, queue_freezes } = totals.totals();
            Status { packets, dropped, lost, queue_freezes }
        });
        let readiness = Readiness::new(stop.flag());
        readiness.set_started();
        server.start(Site { metrics, page, readiness })?;
    }
    Ok(file.transpose()?)
}

/// The pipeline of the chosen mode.
enum Pipeline {
    Capture(Box<Capture>),
    Collect(Box<Collect>),
}

impl Pipeline {
    fn open(mode: &ModeSettings, stop: &Stop) -> anyhow::Result<Self> {
        Ok(match mode {
            ModeSettings::Capture(config) => Self::Capture(Capture::open(config, stop)?.into()),
            ModeSettings::Observe(config) => Self::Capture(Capture::open_observer(config, stop)?.into()),
            ModeSettings::Collect(config) => Self::Collect(Collect::open(config, stop.clone())?.into()),
        })
    }

    fn handle(&self) -> Arc<dyn PipelineHandle> {
        match self {
            Self::Capture(capture) => Arc::new(capture.handle()),
            Self::Collect(collect) => Arc::new(collect.handle()),
        }
    }

    fn run(self) -> anyhow::Result<Ended> {
        match self {
            Self::Capture(capture) => Ok(capture.run()?),
            Self::Collect(collect) => {
                collect.run()?;
                Ok(Ended::Well)
            }
        }
    }
}
