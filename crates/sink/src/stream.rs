//! The output stream: buffers a capture for standard output or a file, and writes large pieces without copying them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Bytes that are buffered before they are written.
const BUFFER: usize = 256 << 10;

/// Pieces of at least this size bypass the buffer: copying them would cost more than a system call.
const LARGE: usize = 32 << 10;

/// The size of a pipe on standard output, if the system allows it: fewer switches between writer and reader. Linux allows
/// 1 MiB to unprivileged users (`/proc/sys/fs/pipe-max-size`, pipe(7)).
const PIPE_SIZE: usize = 1 << 20;

/// Why a capture cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The file cannot be opened.
    #[error("OUTPUT: cannot write to `{}`: {why}{}", .path.display(), remedy(.why))]
    Open {
        /// The path in the settings; `-` for standard output.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// The reader closed the pipe: the program ends, and this is not a failure.
    #[error("the output's reader has gone")]
    ReaderGone,
    /// Writing failed, for example because the disk is full.
    #[error("OUTPUT: cannot write: {0}")]
    Write(io::Error),
}

impl StreamError {
    /// The encoder rejects a block or header. It writes to memory, so this is never an I/O error.
    pub(crate) fn encode(error: pcap_file::PcapError) -> Self {
        Self::Write(io::Error::other(error))
    }
}

fn remedy(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::PermissionDenied => {
            " (the file, or the directory for a new one, must be writable by this user)"
        }
        _ => "",
    }
}

/// A buffered output.
#[derive(Debug)]
pub struct Stream<W> {
    output: W,
    buffer: Vec<u8>,
}

impl Stream<File> {
    /// Opens standard output.
    ///
    /// # Errors
    /// It cannot be duplicated.
    pub fn stdout() -> Result<Self, StreamError> {
        let fd = io::stdout().as_fd().try_clone_to_owned();
        let file = File::from(fd.map_err(|why| StreamError::Open { path: "-".into(), why })?);
        // This fails if it is not a pipe, or the limit is lower: its size then stays as it is.
        let _ = rustix::pipe::fcntl_setpipe_size(&file, PIPE_SIZE);
        Ok(Self::new(file))
    }

    /// Creates a file, or truncates an existing one.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn create(path: &Path) -> Result<Self, StreamError> {
        match File::create(path) {
            Ok(file) => Ok(Self::new(file)),
            Err(why) => Err(StreamError::Open { path: path.to_owned(), why }),
        }
    }
}

impl<W: Write> Stream<W> {
    /// Writes to `output`.
    #[must_use]
    pub fn new(output: W) -> Self {
        Self { output, buffer: Vec::with_capacity(BUFFER) }
    }

    /// Writes `bytes`, now or with those that follow.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
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

    /// Writes what is buffered. After an error the buffer is empty: what it held is lost.
    pub(crate) fn flush(&mut self) -> Result<(), StreamError> {
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
        self.output.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => StreamError::ReaderGone,
            _ => StreamError::Write(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers the length of each write.
    #[derive(Default)]
    struct Lengths(Vec<usize>);

    impl Write for Lengths {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes pieces of these lengths, flushes, and expects writes of the lengths `expected`.
    fn check(pieces: &[usize], expected: &[usize]) {
        let mut lengths = Lengths::default();
        let mut stream = Stream::new(&mut lengths);
        for len in pieces {
            stream.write(&vec![0; *len]).unwrap();
        }
        stream.flush().unwrap();
        assert_eq!(lengths.0, expected, "{pieces:?}");
    }

    #[test]
    fn small_pieces_are_gathered_and_large_ones_are_not() {
        check(&[], &[]);
        check(&[1, 2, 3], &[6]);
        check(&[10, LARGE, 20], &[10, LARGE, 20]);
        check(&[LARGE - 1; 8], &[8 * (LARGE - 1)]);
        check(&[LARGE - 1; 9], &[8 * (LARGE - 1), LARGE - 1]);
    }

    #[test]
    fn a_broken_pipe_means_that_the_reader_has_gone() {
        let write = |kind| {
            let mut stream = Stream::new(Fails(kind));
            stream.write(b"x").unwrap();
            stream.flush()
        };
        assert!(matches!(write(io::ErrorKind::BrokenPipe), Err(StreamError::ReaderGone)));
        assert!(matches!(write(io::ErrorKind::StorageFull), Err(StreamError::Write(_))));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Stream::create(Path::new("/no/such/directory/x.pcap")).unwrap_err();
        assert!(error.to_string().starts_with("OUTPUT: cannot write to `/no/such/directory/x.pcap`: "));
    }
}
