//! A packet of arbitrary bytes, of every link type that is parsed and of an unknown one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::headers::address_family;
use packet::reassembly::Fragment;
use packet::{Headers, LinkType};

const LINK_TYPES: [LinkType; 24] = [
    LinkType::NULL,
    LinkType::ETHERNET,
    LinkType::PPP,
    LinkType::PPP_HDLC,
    LinkType::PPP_ETHER,
    LinkType::RAW,
    LinkType::C_HDLC,
    LinkType::IEEE802_11,
    LinkType::LOOP,
    LinkType::LINUX_SLL,
    LinkType::IEEE802_11_PRISM,
    LinkType::IEEE802_11_RADIOTAP,
    LinkType::IEEE802_11_AVS,
    LinkType::IPV4,
    LinkType::IPV6,
    LinkType::NFLOG,
    LinkType::LINUX_SLL2,
    // Link types without a constant: FDDI, ATM (two), PPP (two), PPI.
    LinkType(10),
    LinkType(100),
    LinkType(106),
    LinkType(166),
    LinkType(192),
    LinkType(204),
    LinkType(u32::MAX),
];

// The first two bytes say how many more bytes the packet had on the wire.
fuzz_target!(|input: &[u8]| {
    let Some((longer, bytes)) = input.split_first_chunk::<2>() else { return };
    let captured = bytes.len() as u32;
    for link_type in LINK_TYPES {
        // A broken file has an original length below the captured one. A packet captured before segmentation offload is
        // longer than an IP header can say.
        for original in [captured, captured + u32::from(u16::from_le_bytes(*longer)), 0, u32::MAX] {
            let headers = Headers::parse(link_type, bytes, original);
            assert_eq!(headers.family, address_family(link_type, bytes));
            let Some(ip) = headers.ip else { continue };
            assert_eq!(ip.src.is_ipv4(), ip.dst.is_ipv4());
            // The packet is within the frame, captured or not, and its payload within the packet.
            assert!(ip.end <= original.max(captured), "{link_type}: {headers:?}");
            assert!(ip.total_len <= ip.end, "{link_type}: {headers:?}");
            let _ = ip.final_destination(bytes);
            let _ = headers.segment();
            if let Some(fragment) = Fragment::of(&headers, bytes) {
                assert!(ip.fragment && fragment.bytes.len() <= fragment.len as usize);
            }
        }
    }
});
