//! The header of a classic pcap file (draft-ietf-opsawg-pcap, section 4).

use packet::LinkType;
use packet::record::MAX_CAPTURED;
use pcap_file::pcap::PcapHeader;
use pcap_file::{DataLink, Endianness, TsResolution};

use crate::StreamError;

/// The header of a little-endian file with nanosecond timestamps, the format of the records in batches.
pub(crate) fn header(link_type: LinkType) -> Result<Vec<u8>, StreamError> {
    let header = PcapHeader {
        snaplen: MAX_CAPTURED as u32,
        datalink: DataLink::from(link_type.0),
        ts_resolution: TsResolution::NanoSecond,
        endianness: Endianness::Little,
        ..PcapHeader::default()
    };
    let mut bytes = Vec::with_capacity(24);
    header.write_to(&mut bytes).map_err(StreamError::encode)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_types_are_written_as_they_are() {
        for number in (0..1000).chain([0x1000_0001, u32::MAX]) {
            let bytes = header(LinkType(number)).unwrap();
            assert_eq!(bytes[20..], number.to_le_bytes());
        }
    }
}
