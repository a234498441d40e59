//! Packets of many machines, seen from one place.

mod capture;
mod cli;
mod collect;
mod libraries;
mod logging;
mod memory;
mod metrics;
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

use tracing::{error, info};

use metrics::{Metrics, MetricsFile, Page, Readiness, Server, Site};
use program::{Ended, Failure};
use settings::Settings;
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
    memory::keep_large_blocks();
    logging::start(settings.common().log.clone());
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

/// Opens everything, then does the work.
fn run(settings: &Settings) -> Result<Ended, Failure> {
    let common = settings.common();
    let server = common.metrics_address.as_ref().map(Server::bind).transpose()?;
    let stop = Stop::new();
    let program = match settings {
        Settings::Capture(settings) => capture::capture(settings, &stop)?,
        Settings::Observe(settings) => capture::observe(settings, &stop)?,
        Settings::Collect(settings) => collect::collect(settings, &stop)?,
    };
    signals::install(stop.clone(), GRACE, Arc::clone(&program.unfinished))?;

    let metrics = Arc::new(Metrics::new(program.render));
    // Written for the last time when it is dropped, after the work.
    let _file = match common.metrics_file.clone() {
        Some(path) => Some(MetricsFile::start(path, Arc::clone(&metrics))?),
        None => None,
    };
    let readiness = Readiness::default();
    if let Some(server) = server {
        info!(addresses = ?server.addresses(), "serving metrics");
        let page = Page { mode: settings.mode(), figures: program.figures };
        server.start(Site { metrics, page, readiness: readiness.clone() })?;
    }
    if let Some(longest) = common.max_duration {
        let stop = stop.clone();
        thread::Builder::new().name("max-duration".into()).spawn(move || {
            if !stop.wait_timeout(longest) {
                stop.set();
                signals::end_after(GRACE, &program.unfinished);
            }
        })?;
    }
    readiness.set(true);
    Ok((program.work)()?)
}
