//! The metrics in a file, for node_exporter's textfile collector, and for what is left of a run that has ended.

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

use super::Metrics;

/// Prometheus scrapes every 15 s by custom: the textfile collector then never hands out older figures than ours.
const INTERVAL: Duration = Duration::from_secs(15);

/// Everybody may read the file: node_exporter runs as a user of its own.
const PERMISSIONS: u32 = 0o644;

/// The file can't be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// Something else has that name: a device, a pipe, a directory. A rename would put a file in its place.
    #[error("METRICS_FILE: `{}` is no regular file (name one, or a path where there is nothing yet)", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error(
        "METRICS_FILE: can't write `{}`: {error} (the directory must exist, and this user must be allowed to make files in it)",
        path.display(),
    )]
    Write {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No thread to write it.
    #[error("METRICS_FILE: no thread to write it: {0}")]
    Thread(io::Error),
}

/// A file that is written again and again, until this is dropped; then once more.
#[derive(Debug)]
pub(crate) struct MetricsFile {
    /// Never sent on: its end is the message.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsFile {
    /// Writes `metrics` to `path`, now, every 15 s, and when the answer is dropped.
    ///
    /// # Errors
    ///
    /// When the first writing fails. Later failures are logged, once in a row.
    pub(crate) fn start(path: PathBuf, metrics: Arc<Metrics>) -> Result<Self, FileError> {
        write(&path, &metrics.text())?;
        let (running, ended) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("metrics-file".to_owned()).spawn(move || {
            let mut failing = false;
            loop {
                let last = !matches!(ended.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout));
                match (write(&path, &metrics.text()), failing) {
                    (Err(error), false) => {
                        warn!(%error, "the metrics file is out of date");
                        failing = true;
                    }
                    (Ok(()), true) => {
                        info!(path = %path.display(), "the metrics file is written again");
                        failing = false;
                    }
                    (Err(_), true) | (Ok(()), false) => {}
                }
                if last {
                    return;
                }
            }
        });
        Ok(Self { running: Some(running), thread: Some(thread.map_err(FileError::Thread)?) })
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // If it has panicked, its message has been printed.
            _ = thread.join();
        }
    }
}

/// Puts `text` into the file at once: a reader finds the old text or the new one, and nothing between.
fn write(path: &Path, text: &str) -> Result<(), FileError> {
    // What a symbolic link leads to is replaced, rather than the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(FileError::NotRegular { path: path.clone() });
    }
    let beside = beside(path);
    let written = write_new(&beside, text).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        _ = fs::remove_file(&beside);
        FileError::Write { path: path.clone(), error }
    })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    // Left over from a run that was killed, or a link that somebody has laid out for us: never written through.
    _ = fs::remove_file(path);
    let mut file = File::create_new(path)?;
    // Whatever the umask says.
    file.set_permissions(Permissions::from_mode(PERMISSIONS))?;
    // Not synced: what a power cut leaves behind is of no use to anybody.
    file.write_all(text.as_bytes())
}

/// A name in the same directory, so that a rename is enough; hidden, and not `*.prom`, so that node_exporter does not
/// read it; with the process' number, so that two programs do not write into one file.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory of this test's own.
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
    fn a_file_is_replaced_whole() {
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
    fn nothing_is_written_through_a_link_laid_out_for_us() {
        let directory = Directory::new("link");
        let path = directory.0.join("x.prom");
        let victim = directory.0.join("victim");
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, beside(&path)).unwrap();
        write(&path, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");

        // But a link in the file's own place is the user's, and stays.
        let link = directory.0.join("link.prom");
        symlink(&path, &link).unwrap();
        write(&link, "newer\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "newer\n");
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let directory = Directory::new("no-file");
        let refused = |path: &Path| write(path, "x").unwrap_err().to_string();
        assert_eq!(
            refused(Path::new("/dev/null")),
            "METRICS_FILE: `/dev/null` is no regular file (name one, or a path where there is nothing yet)"
        );
        assert!(refused(&directory.0).contains("is no regular file"));
        assert!(refused(&directory.0.join("none/x.prom")).contains("No such file or directory"));
        assert_eq!(directory.names(), [""; 0]);
    }

    #[test]
    fn it_is_written_at_the_start_and_at_the_end() {
        let directory = Directory::new("start-end");
        let path = directory.0.join("x.prom");
        let times = std::sync::atomic::AtomicU32::new(0);
        let render = move |out: &mut observe::Exposition| {
            out.sample("times", "", times.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        };
        let metrics = Arc::new(Metrics::new(Arc::new(render)));
        let file = MetricsFile::start(path.clone(), metrics).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("\ntimes 0\n"));
        drop(file);
        assert!(fs::read_to_string(&path).unwrap().ends_with("\ntimes 1\n"));
    }
}
