//! TZSP from the frames of a device.

use std::net::IpAddr;

use packet::headers::Transport;
use packet::reassembly::{self, Fragment, Limits, Reassembler};
use packet::{Headers, LinkType, Record, Timestamp};

use super::{Counters, Datagram, Envelope};

/// Bytes of a UDP header (RFC 768).
const UDP_HEADER_LEN: usize = 8;

/// UDP's protocol number.
const UDP: u8 = 17;

/// Picks TZSP out of a device's frames: datagrams to the ports that are listened on, to whatever address. Fragments are put
/// together. What was truncated, or stays incomplete, is unpacked as far as it goes.
///
/// What a sender on this same machine has segmented by an offload engine passes the device in one piece, and nothing in it
/// says where one datagram ends and the next begins: only the first packet of it is seen.
#[derive(Debug)]
pub struct Wire {
    link_type: LinkType,
    ports: Ports,
    fragments: Reassembler,
}

/// The ports, and what became of their datagrams.
#[derive(Debug)]
struct Ports(Vec<(u16, Counters)>);

impl Wire {
    /// For a device whose frames are of `link_type`.
    #[must_use]
    pub fn new(link_type: LinkType, ports: &[u16], limits: Limits) -> Self {
        let ports = ports.iter().map(|&port| (port, Counters::default())).collect();
        Self { link_type, ports: Ports(ports), fragments: Reassembler::new(limits) }
    }

    /// Takes a frame. Gives the packet in it, or those of the datagrams which it completes or for which no more is waited.
    #[inline]
    pub fn handle_frame(&mut self, frame: &Record<'_>, give: &mut impl FnMut(Datagram<'_>)) {
        let headers = Headers::parse(self.link_type, frame.bytes, frame.original);
        let Some(ip) = headers.ip else { return };
        if ip.fragment {
            self.handle_fragment(frame, &headers, give);
        } else if let Transport::Udp(udp) = headers.transport {
            let end = frame.bytes.len().min(ip.end as usize);
            let datagram = frame.bytes.get(udp.payload_at as usize - UDP_HEADER_LEN..end);
            self.ports.unpack(ip.src, frame.time, datagram.unwrap_or_default(), give);
        }
    }

    /// The device's time has come to `now`: gives what there is of datagrams that have waited for their fragments for too
    /// long.
    pub fn advance(&mut self, now: Timestamp, give: &mut impl FnMut(Datagram<'_>)) {
        let Self { ports, fragments, .. } = self;
        fragments.advance(now, &mut |datagram| ports.unpack_fragmented(&datagram, give));
    }

    /// Gives what there is of all datagrams that wait for their fragments: nothing more comes.
    pub fn finish(&mut self, give: &mut impl FnMut(Datagram<'_>)) {
        let Self { ports, fragments, .. } = self;
        fragments.finish(&mut |datagram| ports.unpack_fragmented(&datagram, give));
    }

    /// No packet that is given later is older than this, unless a frame is: `None` while no fragment waits for another.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.fragments.oldest()
    }

    /// What became of the datagrams to each port.
    pub fn counters(&self) -> impl Iterator<Item = (u16, &Counters)> {
        self.ports.0.iter().map(|(port, counters)| (*port, counters))
    }

    /// What became of the fragments. A datagram that lost the first of them counts too, although nobody can tell to which
    /// port it went.
    #[must_use]
    pub const fn fragments(&self) -> &reassembly::Counters {
        self.fragments.counters()
    }

    fn handle_fragment(
        &mut self,
        frame: &Record<'_>,
        headers: &Headers,
        give: &mut impl FnMut(Datagram<'_>),
    ) {
        let Some(fragment) = Fragment::of(headers, frame.bytes).filter(|fragment| fragment.protocol == UDP)
        else {
            return;
        };
        let Self { ports, fragments, .. } = self;
        // Of a later fragment nobody knows the port: it is kept until the first one comes and tells.
        let unwanted = matches!(headers.transport, Transport::Udp(udp) if !ports.listen(udp.dst_port));
        let give = &mut |datagram: reassembly::Datagram<'_>| ports.unpack_fragmented(&datagram, give);
        if unwanted {
            fragments.ignore(frame.time, fragment.key, give);
        } else {
            fragments.push(frame.time, &fragment, give);
        }
    }
}

impl Ports {
    fn listen(&self, port: u16) -> bool {
        self.0.iter().any(|(listened, _)| *listened == port)
    }

    fn unpack_fragmented(
        &mut self,
        datagram: &reassembly::Datagram<'_>,
        give: &mut impl FnMut(Datagram<'_>),
    ) {
        if datagram.protocol == UDP {
            self.unpack(datagram.src, datagram.time, datagram.payload, give);
        }
    }

    /// Unpacks a UDP datagram, header and all, or the head of one.
    #[inline]
    fn unpack(
        &mut self,
        sender: IpAddr,
        time: Timestamp,
        datagram: &[u8],
        give: &mut impl FnMut(Datagram<'_>),
    ) {
        let Some((header, payload)) = datagram.split_first_chunk::<UDP_HEADER_LEN>() else { return };
        let [port, len] = [[header[2], header[3]], [header[4], header[5]]].map(u16::from_be_bytes);
        let Some((_, counters)) = self.0.iter_mut().find(|(listened, _)| *listened == port) else { return };
        // What follows the datagram in its IP packet is none of it. The length of one that was truncated or that lost a
        // fragment is still that of the whole. A length that can't be is no length.
        let len = usize::from(len).checked_sub(UDP_HEADER_LEN).unwrap_or(payload.len());
        let missing = len.saturating_sub(payload.len()) as u32;
        let envelope = Envelope { sender, listen_port: port, time, missing };
        counters.unpack(envelope, payload.get(..len).unwrap_or(payload), give);
    }
}

#[cfg(test)]
mod tests;
