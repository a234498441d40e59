//! The bytes of a file, or of a pipe whose writer may pause.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::FileError;
use crate::batcher::Timing;
use crate::context::CaptureContext;

/// The longest wait for a pipe. Then the request to stop is checked.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Where the bytes of a capture come from.
#[derive(Debug)]
pub(super) struct Input {
    /// The path as given.
    path: String,
    file: fs::File,
    /// Whether reading may have to wait for a writer.
    waits: bool,
    /// Bytes that were peeked at and not read yet.
    peeked: Vec<u8>,
    stop: Arc<AtomicBool>,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// That many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    NothingYet,
    /// The end.
    End,
}

impl Input {
    pub(super) fn open(path: &str, context: &CaptureContext) -> Result<Self, FileError> {
        let failed = |why| FileError::Open { path: path.to_owned(), why };
        let file = if path == "-" {
            fs::File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
        } else {
            fs::File::open(path).map_err(failed)?
        };
        let kind = file.metadata().map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let stop = Arc::clone(&context.stop);
        Ok(Self { path: path.to_owned(), file, waits: !kind.is_file(), peeked: Vec::new(), stop })
    }

    /// The path as given.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The device name: the file's name without its directory.
    pub(super) fn name(&self) -> String {
        if self.path == "-" {
            return "stdin".to_owned();
        }
        let name = Path::new(&self.path).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// How the packets arrive.
    pub(super) fn timing(&self) -> Timing {
        if self.waits { Timing::Piped } else { Timing::Stored }
    }

    pub(super) fn not_a_capture(&self, why: &'static str) -> FileError {
        FileError::NotACapture { path: self.path.clone(), why }
    }

    /// The first bytes, which are still read afterwards. `None` if there are fewer.
    pub(super) fn peek<const N: usize>(&mut self) -> Result<Option<[u8; N]>, FileError> {
        let mut bytes = [0; N];
        let mut had = 0;
        while had < N {
            match self.read_some(&mut bytes[had..]) {
                Ok(Filled::Bytes(read)) => had += read,
                Ok(Filled::NothingYet) if !self.stop.load(Ordering::Relaxed) => {}
                Ok(Filled::NothingYet | Filled::End) => break,
                Err(why) => return Err(FileError::Read { path: self.path.clone(), packets: 0, why }),
            }
        }
        self.peeked = bytes[..had].to_vec();
        Ok((had == N).then_some(bytes))
    }

    /// Appends to `buf` what can be read, up to its capacity. Waits at most for `timeout`.
    pub(super) fn fill(&mut self, buf: &mut Vec<u8>, timeout: Duration) -> io::Result<Filled> {
        if !self.peeked.is_empty() {
            let read = self.peeked.len();
            buf.append(&mut self.peeked);
            return Ok(Filled::Bytes(read));
        }
        if self.waits && !self.is_readable(timeout)? {
            return Ok(Filled::NothingYet);
        }
        loop {
            match rustix::io::read(&self.file, spare_capacity(buf)) {
                Ok(0) => return Ok(Filled::End),
                Ok(read) => return Ok(Filled::Bytes(read)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> io::Result<Filled> {
        if !self.peeked.is_empty() {
            let read = self.peeked.len().min(buf.len());
            buf[..read].copy_from_slice(&self.peeked[..read]);
            self.peeked.drain(..read);
            return Ok(Filled::Bytes(read));
        }
        if self.waits && !self.is_readable(POLL_TIMEOUT)? {
            return Ok(Filled::NothingYet);
        }
        loop {
            match self.file.read(buf) {
                Ok(0) => return Ok(Filled::End),
                Ok(read) => return Ok(Filled::Bytes(read)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn is_readable(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout.min(POLL_TIMEOUT)).ok();
        let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Input {
    /// [`io::ErrorKind::WouldBlock`] if nothing arrives for [`POLL_TIMEOUT`].
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.read_some(buf)? {
            Filled::Bytes(read) => Ok(read),
            Filled::NothingYet => Err(io::ErrorKind::WouldBlock.into()),
            Filled::End => Ok(0),
        }
    }
}
