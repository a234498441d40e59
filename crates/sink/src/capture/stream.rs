//! Bytes on their way to standard output or to a file: few system calls, and no copy where it is not worth one.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// Bytes gathered before they are written.
const BUFFER: usize = 256 << 10;

/// Pieces of at least this size are not gathered: copying them would cost more than a system call of their own.
const LARGE: usize = 32 << 10;

/// The size that a pipe on standard output is given, where the system allows it: the reader and we then take turns less
/// often. Linux grants 1 MiB to everybody (`/proc/sys/fs/pipe-max-size`, pipe(7)).
const PIPE_SIZE: usize = 1 << 20;

/// Why a capture stream cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The file does not open.
    #[error("OUTPUT: cannot write to `{path}`: {why}")]
    Open {
        /// As the user wrote it.
        path: String,
        /// What the system says.
        why: io::Error,
    },
    /// Who read the stream has gone: a reason to end, and no failure.
    #[error("the reader of the output has gone")]
    ReaderGone,
    /// The disk is full, or the like.
    #[error("OUTPUT: cannot write: {0}")]
    Write(io::Error),
}

/// Where a capture stream goes.
#[derive(Debug)]
pub struct Stream {
    file: fs::File,
    buffer: Vec<u8>,
}

impl Stream {
    /// Standard output for `-`, else a file, which is emptied.
    ///
    /// # Errors
    /// The file does not open.
    pub fn open(path: &str) -> Result<Self, StreamError> {
        let failed = |why| StreamError::Open { path: path.to_owned(), why };
        let file = if path == "-" {
            let file = fs::File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
            // Not a pipe, or more than we may have: it stays as it is.
            let _ = rustix::pipe::fcntl_setpipe_size(&file, PIPE_SIZE);
            file
        } else {
            fs::File::create(path).map_err(failed)?
        };
        Ok(Self { file, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Writes `bytes`, now or with those that follow.
    ///
    /// # Errors
    /// The stream cannot be written.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if bytes.len() >= LARGE {
            self.flush()?;
            return self.write_through(bytes);
        }
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what has been gathered.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write_through(&buffer);
        buffer.clear();
        self.buffer = buffer;
        written
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.file.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => StreamError::ReaderGone,
            _ => StreamError::Write(error),
        })
    }
}
