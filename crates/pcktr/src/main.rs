//! `pcktr` captures packets, relays them to a collector, merges them into one stream, and measures them.

mod capture;
mod cli;
mod collect;
mod libraries;
mod logging;
mod observers;
mod program;
mod relay;
mod settings;
mod signals;
mod sources;
mod tap;
mod tzsp;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use prometheus::Registry;
use tracing::{error, info};
use web::{Metrics, MetricsFile, Page, Readiness, Server, Site};

use program::{Ended, Failure};
use settings::{ModeSettings, Settings};
use signals::Stop;

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
        Err(Failure::Settings(error)) => {
            error!("{error:#}");
            settings::EXIT_CODE.into()
        }
        Err(Failure::Rest(error)) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Opens everything, then runs the mode to its end.
fn run(settings: &Settings) -> Result<Ended, Failure> {
    let Settings { mode, program: options } = settings;
    let server = options.metrics_address.as_ref().map(Server::bind).transpose()?;
    let stop = Stop::new();
    let program = match mode {
        ModeSettings::Capture(settings) => capture::capture(settings, &stop)?,
        ModeSettings::Observe(settings) => capture::observe(settings, &stop)?,
        ModeSettings::Collect(settings) => collect::collect(settings, &stop)?,
    };
    signals::install(stop.clone(), GRACE, Arc::clone(&program.unfinished))?;

    let registry = Registry::new();
    web::register_process(&registry, [("libpcap", libraries::libpcap()), ("libzmq", libraries::libzmq())])?;
    let render = program.render;
    let metrics = Arc::new(Metrics::new(registry, move |out| render(out)));
    // Dropped, and so written for the last time, after the work.
    let _file = match options.metrics_file.clone() {
        Some(path) => Some(MetricsFile::start(path, Arc::clone(&metrics))?),
        None => None,
    };
    let readiness = Readiness::new(stop.flag());
    if let Some(server) = server {
        info!(addresses = ?server.addresses(), "serving metrics");
        let status = program.status;
        let page = Page::new(mode.mode().as_str(), move || status());
        server.start(Site { metrics, page, readiness: readiness.clone() })?;
    }
    if let Some(limit) = options.max_duration {
        let stop = stop.clone();
        thread::Builder::new().name("max-duration".into()).spawn(move || {
            if !stop.wait_timeout(limit) {
                stop.set();
                signals::exit_after(GRACE, &program.unfinished);
            }
        })?;
    }
    readiness.set_started();
    Ok((program.work)()?)
}
