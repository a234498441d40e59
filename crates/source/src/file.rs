//! Packets of a capture file: pcap of every kind, and pcapng, from a path or from standard input.
//!
//! A file is read as fast as what comes behind it takes the packets; what arrives on a pipe is handed over no later than
//! a live capture would.

mod error;
mod input;
mod pcap;
mod pcapng;

use std::sync::Arc;

use packet::{LinkType, Origin};

pub use error::FileError;

use crate::outlet::{Outlet, Run};
use crate::packer::Pace;
use input::Input;

/// A capture file that is open, and known to be one.
#[derive(Debug)]
pub struct File {
    content: Content,
    run: Run,
}

#[derive(Debug)]
enum Content {
    Pcap(pcap::Reader),
    PcapNg(pcapng::Reader),
}

impl File {
    /// Opens a file (`-`: standard input), and reads as much of it as shows what it is. On a pipe that waits for the
    /// first bytes.
    ///
    /// # Errors
    /// There is no such file, or it is no capture.
    pub fn open(path: &str, run: Run) -> Result<Self, FileError> {
        let mut input = Input::open(path, &run)?;
        let magic = input.peek::<4>()?;
        let content = match magic {
            None => return Err(input.not_a_capture("it is empty")),
            Some(pcapng::MAGIC) => Content::PcapNg(pcapng::Reader::open(input)?),
            Some(magic) => match pcap::Format::of(magic) {
                Some(format) => Content::Pcap(pcap::Reader::open(input, format)?),
                None => return Err(input.not_a_capture(hint(magic))),
            },
        };
        Ok(Self { content, run })
    }

    /// Reads to the end, or until it is time to end. The last batch of every source says that it has ended.
    ///
    /// # Errors
    /// Something in the file cannot be read. What stood before it has been handed over.
    pub fn capture(self, outlet: &mut dyn Outlet) -> Result<(), FileError> {
        match self.content {
            Content::Pcap(reader) => reader.capture(outlet, &self.run),
            Content::PcapNg(reader) => reader.capture(outlet, &self.run),
        }
    }

    /// How the packets come: off the disk, or through a pipe.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match &self.content {
            Content::Pcap(reader) => reader.pace(),
            Content::PcapNg(reader) => reader.pace(),
        }
    }

    /// The link type, where the file has but one, and says so at its beginning.
    #[must_use]
    pub fn link_type(&self) -> Option<LinkType> {
        match &self.content {
            Content::Pcap(reader) => Some(reader.link_type()),
            Content::PcapNg(_) => None,
        }
    }
}

/// What a file that is no capture may be.
fn hint(magic: [u8; 4]) -> &'static str {
    match magic {
        [0x1f, 0x8b, ..] => "it is compressed by gzip: `zcat FILE | pcktr --read-file -`",
        [0x28, 0xb5, 0x2f, 0xfd] => "it is compressed by zstd: `zstdcat FILE | pcktr --read-file -`",
        [0xfd, b'7', b'z', b'X'] => "it is compressed by xz: `xzcat FILE | pcktr --read-file -`",
        _ => "it begins with none of the magic numbers of pcap and pcapng",
    }
}

/// An origin in the file of this name.
fn origin(run: &Run, device: &str) -> Origin {
    Origin { source: Arc::clone(&run.source), device: device.into(), listen_port: None }
}
