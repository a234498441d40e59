//! Packets of a capture file: pcap of every kind, and pcapng, from a path or from standard input.
//!
//! A file is read as fast as its batches are taken. Packets that arrive through a pipe are handed on no later than
//! those of a live capture.

mod error;
mod input;
mod pcap;
mod pcapng;

use std::sync::Arc;

use batch::Batch;
use packet::{LinkType, Origin};

pub use error::FileError;

use crate::context::CaptureContext;
use crate::stages::StagesConfig;
use crate::tzsp::TzspReport;
use crate::{PacketSource, Progress};
use input::Input;

/// A capture file that is open and has a valid header.
#[derive(Debug)]
pub struct File {
    content: Content,
}

#[derive(Debug)]
enum Content {
    Pcap(pcap::Reader),
    PcapNg(pcapng::Reader),
}

impl File {
    /// Opens a file (`-`: standard input) and reads its header. On a pipe this waits for the first bytes.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a capture file.
    pub fn open(path: &str, stages: &StagesConfig, context: CaptureContext) -> Result<Self, FileError> {
        let mut input = Input::open(path, &context)?;
        let magic = input.peek::<4>()?;
        let content = match magic {
            None => return Err(input.not_a_capture("it is empty")),
            Some(pcapng::MAGIC) => Content::PcapNg(pcapng::Reader::open(input, stages, context)?),
            Some(magic) => match pcap::Format::from_magic(magic) {
                Some(format) => Content::Pcap(pcap::Reader::open(input, format, stages, context)?),
                None => return Err(input.not_a_capture(hint(magic))),
            },
        };
        Ok(Self { content })
    }

    /// The link type, if the file has only one and its header says so.
    #[must_use]
    pub fn link_type(&self) -> Option<LinkType> {
        match &self.content {
            Content::Pcap(reader) => Some(reader.link_type()),
            Content::PcapNg(_) => None,
        }
    }

    /// The counters of the TZSP ports, where TZSP is unpacked.
    #[must_use]
    pub fn tzsp_report(&self) -> Option<TzspReport> {
        match &self.content {
            Content::Pcap(reader) => reader.tzsp_report(),
            Content::PcapNg(reader) => reader.tzsp_report(),
        }
    }
}

impl PacketSource for File {
    type Error = FileError;

    fn poll(&mut self) -> Result<Progress, FileError> {
        match &mut self.content {
            Content::Pcap(reader) => reader.poll(),
            Content::PcapNg(reader) => reader.poll(),
        }
    }

    fn poll_batch(&mut self) -> Option<Batch> {
        match &mut self.content {
            Content::Pcap(reader) => reader.poll_batch(),
            Content::PcapNg(reader) => reader.poll_batch(),
        }
    }

    fn wants_buffer(&mut self) -> bool {
        match &mut self.content {
            Content::Pcap(reader) => reader.wants_buffer(),
            Content::PcapNg(reader) => reader.wants_buffer(),
        }
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        match &mut self.content {
            Content::Pcap(reader) => reader.recycle(buffer),
            Content::PcapNg(reader) => reader.recycle(buffer),
        }
    }
}

/// What a file that is not a capture may be.
fn hint(magic: [u8; 4]) -> &'static str {
    match magic {
        [0x1f, 0x8b, ..] => "it is compressed with gzip; use `zcat FILE | pcktr --read-file -`",
        [0x28, 0xb5, 0x2f, 0xfd] => "it is compressed with zstd; use `zstdcat FILE | pcktr --read-file -`",
        [0xfd, b'7', b'z', b'X'] => "it is compressed with xz; use `xzcat FILE | pcktr --read-file -`",
        _ => "it does not start with a magic number of pcap or pcapng",
    }
}

/// The origin of an interface in a file.
fn origin(source: &Arc<str>, device: &str) -> Origin {
    Origin { source: Arc::clone(source), device: device.into(), listen_port: None }
}
