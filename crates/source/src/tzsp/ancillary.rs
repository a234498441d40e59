//! What the kernel tells of a datagram besides its bytes: its sender, and control messages (cmsg(3)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::Timestamp;

/// The control messages that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ancillary {
    /// When the datagram was received (`SO_TIMESTAMPNS`, socket(7)).
    pub(super) time: Option<Timestamp>,
    /// Datagrams that the socket had dropped by then, modulo 2^32 (`SO_RXQ_OVFL`, socket(7)). Nothing until the first.
    pub(super) dropped: Option<u32>,
    /// The bytes are several datagrams of this length, the last of which may be shorter (`UDP_GRO`, udp(7)).
    pub(super) segment: Option<usize>,
}

const WORD: usize = size_of::<usize>();

/// A length, a level, a type: `struct cmsghdr`.
const HEADER_LEN: usize = WORD + 8;

/// Bytes for the three messages: a time of two words, and two of 32 bits, each aligned to a word.
pub(super) const CONTROL_LEN: usize = 3 * HEADER_LEN + 4 * WORD;

impl Ancillary {
    /// Reads the control messages of a datagram. What else there may be is passed over.
    #[inline]
    pub(super) fn read(mut control: &[u8]) -> Self {
        let mut told = Self::default();
        while let Some(message) = first_message(control) {
            let (level, kind, data) = message;
            match (level, kind) {
                (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) => told.time = timespec(data),
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => told.dropped = word32(data).map(u32::from_ne_bytes),
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment =
                        word32(data).and_then(|data| usize::try_from(i32::from_ne_bytes(data)).ok());
                    told.segment = segment.filter(|&len| len > 0);
                }
                _ => {}
            }
            let len = (HEADER_LEN + data.len()).next_multiple_of(WORD);
            control = control.get(len..).unwrap_or_default();
        }
        told
    }
}

/// The address in a `sockaddr_in` or `sockaddr_in6`. An IPv4 address that a socket of both families sees as an IPv6 one
/// comes out as what it is.
#[inline]
pub(super) fn sender(name: &[u8]) -> Option<IpAddr> {
    let family = i32::from(u16::from_ne_bytes(*name.first_chunk()?));
    match family {
        libc::AF_INET => name.get(4..)?.first_chunk::<4>().map(|&octets| Ipv4Addr::from(octets).into()),
        libc::AF_INET6 => {
            let octets = name.get(8..)?.first_chunk::<16>()?;
            Some(IpAddr::V6(Ipv6Addr::from(*octets)).to_canonical())
        }
        _ => None,
    }
}

#[inline]
fn first_message(control: &[u8]) -> Option<(i32, i32, &[u8])> {
    let (len, rest) = control.split_first_chunk::<WORD>()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let data = rest.get(..usize::from_ne_bytes(*len).checked_sub(HEADER_LEN)?)?;
    Some((i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data))
}

/// Seconds and nanoseconds, a word each: also on 32 bits, where `SO_TIMESTAMPNS` keeps to the old structure.
fn timespec(data: &[u8]) -> Option<Timestamp> {
    let (secs, rest) = data.split_first_chunk::<WORD>()?;
    let nanos = rest.first_chunk::<WORD>()?;
    let [secs, nanos] = [secs, nanos].map(|word| usize::from_ne_bytes(*word) as u64);
    Some(Timestamp::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos)))
}

fn word32(data: &[u8]) -> Option<[u8; 4]> {
    data.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A control message as the kernel lays it out.
    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let len = HEADER_LEN + data.len();
        let mut message = len.to_ne_bytes().to_vec();
        message.extend(level.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(data);
        message.resize(len.next_multiple_of(WORD), 0);
        message
    }

    #[test]
    fn messages_are_told_apart() {
        let time = [1_700_000_000_usize, 123_456_789].map(usize::to_ne_bytes).concat();
        let control = [
            message(libc::SOL_UDP, libc::UDP_GRO, &1452_i32.to_ne_bytes()),
            message(libc::SOL_IP, libc::IP_TTL, &64_i32.to_ne_bytes()),
            message(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &time),
            message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7_u32.to_ne_bytes()),
        ]
        .concat();
        let expected = Ancillary {
            time: Some(Timestamp::from_parts(1_700_000_000, 123_456_789)),
            dropped: Some(7),
            segment: Some(1452),
        };
        assert_eq!(Ancillary::read(&control), expected);
        // The last one's padding may be missing, the last one itself may not be.
        assert_eq!(Ancillary::read(&control[..control.len() - 4]), expected);
        assert_eq!(Ancillary::read(&control[..control.len() - 5]), Ancillary { dropped: None, ..expected });
        assert_eq!(Ancillary::read(&[]), Ancillary::default());
    }

    #[test]
    fn senders_are_of_both_families() {
        let check = |family: i32, rest: &[u8], expected: Option<&str>| {
            let name = [&(family as u16).to_ne_bytes(), rest].concat();
            assert_eq!(sender(&name), expected.map(|address| address.parse().unwrap()));
        };
        check(libc::AF_INET, &[0x90, 0x90, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0], Some("192.0.2.1"));
        let v6 = |address: &str| {
            let address: Ipv6Addr = address.parse().unwrap();
            [&[0x90, 0x90, 0, 0, 0, 0], &address.octets()[..], &[0; 4]].concat()
        };
        check(libc::AF_INET6, &v6("2001:db8::1"), Some("2001:db8::1"));
        check(libc::AF_INET6, &v6("::ffff:192.0.2.1"), Some("192.0.2.1"));
        check(libc::AF_UNIX, &v6("::1"), None);
        check(libc::AF_INET, &[0x90, 0x90, 192], None);
    }

    proptest! {
        #[test]
        fn any_control_ends(len in 0..40_usize, rest in any::<Vec<u8>>()) {
            let control = [&len.to_ne_bytes()[..], &rest].concat();
            let told = Ancillary::read(&control);
            prop_assert!(told.segment.is_none_or(|segment| segment > 0));
        }
    }
}
