//! The metrics file, for node_exporter's textfile collector, and to keep the final metrics of a run.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::{info, warn};

use crate::Metrics;

/// A usual scrape interval of Prometheus.
const INTERVAL: Duration = Duration::from_secs(15);

/// World-readable, because node_exporter usually runs as another user.
const PERMISSIONS: u32 = 0o644;

/// The metrics file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsFileError {
    /// The path is a device, a pipe or a directory, which renaming a file to it would replace.
    #[error("METRICS_FILE: `{}` is not a regular file (use another path)", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// Writing failed.
    #[error(
        "METRICS_FILE: cannot write `{}`: {error} (the directory must exist and be writable by this user; in the sandbox, root has no other rights: see RUN_AS_USER)",
        path.display(),
    )]
    Write {
        /// The path.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The thread cannot be created.
    #[error("METRICS_FILE: cannot create a thread: {0}")]
    Thread(io::Error),
}

/// A file that is rewritten regularly, and a last time when this is dropped.
#[derive(Debug)]
pub struct MetricsFile {
    /// Nothing is sent. Dropping it ends the thread.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsFile {
    /// Writes `metrics` to `path` now, every 15 s, and when the returned value is dropped.
    ///
    /// # Errors
    ///
    /// The first write fails. Later failures are logged, consecutive ones once.
    pub fn start(path: PathBuf, metrics: Arc<Metrics>) -> Result<Self, MetricsFileError> {
        write(&path, &metrics.text())?;
        let (running, ended) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("metrics-file".to_owned()).spawn(move || {
            let mut failing = false;
            loop {
                let last = !matches!(ended.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout));
                match (write(&path, &metrics.text()), failing) {
                    (Err(error), false) => {
                        warn!(%error, "cannot update the metrics file");
                        failing = true;
                    }
                    (Ok(()), true) => {
                        info!(path = %path.display(), "the metrics file is updated again");
                        failing = false;
                    }
                    (Err(_), true) | (Ok(()), false) => {}
                }
                if last {
                    return;
                }
            }
        });
        Ok(Self { running: Some(running), thread: Some(thread.map_err(MetricsFileError::Thread)?) })
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, its message has been printed.
            _ = thread.join();
        }
    }
}

/// Replaces the file atomically: a reader finds the old text or the new text.
fn write(path: &Path, text: &str) -> Result<(), MetricsFileError> {
    // Replaces the target of a symbolic link, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(MetricsFileError::NotRegular { path: path.clone() });
    }
    let temporary = temporary(path);
    let written = write_new(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        _ = fs::remove_file(&temporary);
        MetricsFileError::Write { path: path.clone(), error }
    })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    // Removes the remains of a killed run. `create_new` does not follow a symbolic link planted by another user.
    _ = fs::remove_file(path);
    let mut file = File::create_new(path)?;
    // Independent of the umask.
    file.set_permissions(Permissions::from_mode(PERMISSIONS))?;
    // Not synced: metrics need not survive a power failure.
    file.write_all(text.as_bytes())
}

/// The path of a temporary file: in the same directory, so that it can be renamed; hidden and not `*.prom`, so that
/// node_exporter ignores it; with the process ID, so that two programs do not share it.
fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A temporary directory, removed when dropped.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pcktr-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn file_is_replaced_atomically() {
        let directory = Directory::new("replaced");
        let path = directory.0.join("x.prom");
        let old_open = |text: &str| {
            write(&path, text).unwrap();
            File::open(&path).unwrap()
        };
        let old = old_open("old\n");
        write(&path, "new\n").unwrap();
        assert_eq!(io::read_to_string(old).unwrap(), "old\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(directory.names(), ["x.prom"]);
    }

    #[test]
    fn symbolic_links() {
        let directory = Directory::new("link");
        let path = directory.0.join("x.prom");
        let victim = directory.0.join("victim");
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, temporary(&path)).unwrap();
        write(&path, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");

        // A link at the path itself is the user's, and is kept.
        let link = directory.0.join("link.prom");
        symlink(&path, &link).unwrap();
        write(&link, "newer\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "newer\n");
    }

    #[test]
    fn other_kinds_of_files_are_refused() {
        let directory = Directory::new("no-file");
        let refused = |path: &Path| write(path, "x").unwrap_err().to_string();
        assert_eq!(
            refused(Path::new("/dev/null")),
            "METRICS_FILE: `/dev/null` is not a regular file (use another path)"
        );
        assert!(refused(&directory.0).contains("is not a regular file"));
        assert!(refused(&directory.0.join("none/x.prom")).contains("No such file or directory"));
        assert_eq!(directory.names(), [""; 0]);
    }

    #[test]
    fn file_is_written_at_start_and_on_drop() {
        let directory = Directory::new("start-end");
        let path = directory.0.join("x.prom");
        let times = std::sync::atomic::AtomicU32::new(0);
        let metrics = Arc::new(Metrics::new(prometheus::Registry::new(), move |out| {
            out.sample("times", "", times.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }));
        let file = MetricsFile::start(path.clone(), metrics).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("times 0\n"));
        drop(file);
        assert!(fs::read_to_string(&path).unwrap().ends_with("times 1\n"));
    }
}
