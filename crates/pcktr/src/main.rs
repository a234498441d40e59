//! `pcktr` captures packets, relays them to a collector, merges them into one stream, and measures them.

mod cli;
mod libraries;
mod logging;
mod permissions;
mod settings;
mod signals;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pipeline::{
    Capture, CaptureError, Collect, CollectError, Ended, Listener, PipelineHandle, StartedCapture,
    StartedCollect, Stop,
};
use prometheus::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandbox::{Mechanisms, Sandbox, User};
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
    if let ModeSettings::Keygen(path) = &settings.mode {
        return keygen(path);
    }
    raise_descriptor_limit();
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
    error.is::<WebConfigError>()
        || error.downcast_ref::<CaptureError>().is_some_and(CaptureError::is_setting)
        || error.downcast_ref::<CollectError>().is_some_and(CollectError::is_setting)
}

/// Raises the limit of file descriptors as far as this process may. The usual soft limit of 1024 is for programs that use
/// select(2), and too low for the connections of a collector.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What fails stays as it was: `Pull` tells how many connections fit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Makes a key, unless there is one, and prints its public key.
fn keygen(path: &Path) -> ExitCode {
    match relay::create_secret_key(path) {
        // A closed standard output must not look like success: the public key is what was asked for.
        Ok(key) if writeln!(io::stdout(), "{}", key.public()).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            _ = writeln!(io::stderr(), "{error}");
            settings::EXIT_CODE.into()
        }
    }
}

/// Opens everything, gives up what is no longer needed, and then runs the mode to its end.
///
/// Capabilities and landlock bind a thread and those that it starts. So no thread is started before the sandbox is entered.
fn run(settings: &Settings) -> anyhow::Result<Ended> {
    let Settings { mode, program } = settings;
    let sandbox = program.sandbox.then(Sandbox::prepare);
    let web_config = program.web_config_file.as_deref().map(WebConfig::load).transpose()?;
    let web_paths = web_config.as_ref().map(WebConfig::paths).unwrap_or_default();
    // The port is bound first, so that a port in use is reported before anything is captured.
    let server =
        program.metrics_address.as_ref().map(|address| Server::bind(address, web_config)).transpose()?;
    let stop = Stop::new();
    let pipeline = Pipeline::open(mode, program, &stop)?;
    let mechanisms = match sandbox {
        Some(sandbox) => sandbox.enter(&permissions::of(settings, &web_paths)),
        None => Mechanisms::none(),
    };
    let pipeline = pipeline.start()?;
    let handle = pipeline.handle();
    signals::install(stop.clone(), GRACE, Arc::clone(&handle))?;
    let registry = Registry::new();
    registry.register(mechanisms.collector()?)?;
    // Dropped, and so written for the last time, after the pipeline has ended.
    let _file = serve(server, registry, settings, &handle, &stop)?;
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
    registry: Registry,
    settings: &Settings,
    handle: &Arc<dyn PipelineHandle>,
    stop: &Stop,
) -> anyhow::Result<Option<MetricsFile>> {
    let Settings { mode, program } = settings;
    web::register_process(
        &registry,
        [("libpcap", libraries::libpcap()), ("libsodium", libraries::libsodium())],
    )?;
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

/// The pipeline of the chosen mode, open.
enum Pipeline {
    Capture(Box<Capture>),
    Collect(Box<Collect>),
}

impl Pipeline {
    /// Opens what may need privileges, changes the user, and opens the output, which belongs to that user: root would
    /// follow a symbolic link in a directory of that user.
    fn open(mode: &ModeSettings, program: &ProgramSettings, stop: &Stop) -> anyhow::Result<Self> {
        let change_user = || program.run_as_user.as_ref().map_or(Ok(()), User::assume);
        match mode {
            ModeSettings::Capture(config) => {
                let capture = Capture::open(config, stop)?;
                change_user()?;
                Ok(Self::Capture(capture.into()))
            }
            ModeSettings::Observe(config) => {
                let capture = Capture::open_observer(config, stop)?;
                change_user()?;
                Ok(Self::Capture(capture.into()))
            }
            ModeSettings::Collect(config) => {
                let listener = Listener::open(config)?;
                change_user()?;
                Ok(Self::Collect(Collect::open(listener, config, stop)?.into()))
            }
            ModeSettings::Keygen(_) => anyhow::bail!("MODE=keygen has no pipeline"),
        }
    }

    fn start(self) -> anyhow::Result<StartedPipeline> {
        Ok(match self {
            Self::Capture(capture) => StartedPipeline::Capture(capture.start()?.into()),
            Self::Collect(collect) => StartedPipeline::Collect(collect.start()?.into()),
        })
    }
}

/// The pipeline of the chosen mode, with its threads.
enum StartedPipeline {
    Capture(Box<StartedCapture>),
    Collect(Box<StartedCollect>),
}

impl StartedPipeline {
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
