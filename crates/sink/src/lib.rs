//! Where packets leave the program: pcap and pcapng, to a file or a pipe.

mod pcap;
mod pcapng;
mod stream;
mod writer;

pub use stream::{Stream, StreamError};
pub use writer::{CaptureFormat, CaptureWriter, InterfaceCounts, InterfaceId};
