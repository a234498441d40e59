//! TZSP from the frames of a device or a file.

use std::net::IpAddr;

use packet::headers::Transport;
use packet::reassembly::{self, Fragment, Reassembler, ReassemblyLimits};
use packet::{Headers, LinkType, Record, Timestamp};

use super::{DatagramMeta, TzspCounters, TzspDatagram};

/// Bytes of a UDP header (RFC 768).
const UDP_HEADER_LEN: usize = 8;

/// UDP's protocol number.
const UDP: u8 = 17;

/// Finds TZSP in frames: UDP datagrams to the given ports, whatever their address. Fragments are reassembled. Datagrams
/// that were truncated or stay incomplete are unpacked as far as they go.
///
/// Limit: datagrams that a sender on this host leaves to segmentation offload pass the device in one piece that does
/// not say where one ends and the next begins. Only the first packet of it is seen.
#[derive(Debug)]
pub(crate) struct TzspFromFrames {
    link_type: LinkType,
    ports: Ports,
    fragments: Reassembler,
}

/// The ports and their counters.
#[derive(Debug)]
struct Ports(Vec<(u16, TzspCounters)>);

impl TzspFromFrames {
    /// For frames of `link_type`.
    #[must_use]
    pub(crate) fn new(link_type: LinkType, ports: &[u16], limits: ReassemblyLimits) -> Self {
        let ports = ports.iter().map(|&port| (port, TzspCounters::default())).collect();
        Self { link_type, ports: Ports(ports), fragments: Reassembler::new(limits) }
    }

    /// Limits the memory for incomplete datagrams, in bytes.
    pub(crate) const fn set_memory_limit(&mut self, bytes: usize) {
        self.fragments.set_memory_limit(bytes);
    }

    /// Takes a frame. Gives the packet in it, or the packets of the datagrams that it completes or that have timed out.
    #[inline]
    pub(crate) fn handle_frame(&mut self, frame: &Record<'_>, give: &mut impl FnMut(TzspDatagram<'_>)) {
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

    /// Gives the heads of datagrams whose fragments have been overdue for too long at `now`, in packet time.
    pub(crate) fn advance(&mut self, now: Timestamp, give: &mut impl FnMut(TzspDatagram<'_>)) {
        let Self { ports, fragments, .. } = self;
        fragments.advance(now, &mut |datagram| ports.unpack_fragmented(&datagram, give));
    }

    /// Gives the heads of all datagrams that wait for fragments, at the end of the capture.
    pub(crate) fn finish(&mut self, give: &mut impl FnMut(TzspDatagram<'_>)) {
        let Self { ports, fragments, .. } = self;
        fragments.finish(&mut |datagram| ports.unpack_fragmented(&datagram, give));
    }

    /// The time of the oldest datagram that waits for a fragment.
    #[must_use]
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.fragments.oldest()
    }

    /// The counters of each port.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (u16, &TzspCounters)> {
        self.ports.0.iter().map(|(port, counters)| (*port, counters))
    }

    /// The counters of the fragments. A datagram that lost its first fragment counts too, although its port is unknown.
    #[must_use]
    pub(crate) const fn fragments(&self) -> &reassembly::ReassemblyCounters {
        self.fragments.counters()
    }

    fn handle_fragment(
        &mut self,
        frame: &Record<'_>,
        headers: &Headers,
        give: &mut impl FnMut(TzspDatagram<'_>),
    ) {
        let Some(fragment) = Fragment::of(headers, frame.bytes).filter(|fragment| fragment.protocol == UDP)
        else {
            return;
        };
        let Self { ports, fragments, .. } = self;
        // Only the first fragment has the port. Later ones are kept until it arrives.
        let unwanted = matches!(headers.transport, Transport::Udp(udp) if !ports.listen(udp.dst_port));
        let give =
            &mut |datagram: reassembly::ReassembledDatagram<'_>| ports.unpack_fragmented(&datagram, give);
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
        datagram: &reassembly::ReassembledDatagram<'_>,
        give: &mut impl FnMut(TzspDatagram<'_>),
    ) {
        if datagram.protocol == UDP {
            self.unpack(datagram.src, datagram.time, datagram.payload, give);
        }
    }

    /// Unpacks a UDP datagram with its header, or the head of one.
    #[inline]
    fn unpack(
        &mut self,
        sender: IpAddr,
        time: Timestamp,
        datagram: &[u8],
        give: &mut impl FnMut(TzspDatagram<'_>),
    ) {
        let Some((header, payload)) = datagram.split_first_chunk::<UDP_HEADER_LEN>() else { return };
        let [port, len] = [[header[2], header[3]], [header[4], header[5]]].map(u16::from_be_bytes);
        let Some((_, counters)) = self.0.iter_mut().find(|(listened, _)| *listened == port) else { return };
        // The UDP length of a datagram that was truncated or lost a fragment is still that of the whole. Bytes after that
        // length are padding. An impossible length is ignored.
        let len = usize::from(len).checked_sub(UDP_HEADER_LEN).unwrap_or(payload.len());
        let missing = len.saturating_sub(payload.len()) as u32;
        let meta = DatagramMeta { sender, listen_port: port, time, missing };
        counters.unpack(meta, payload.get(..len).unwrap_or(payload), give);
    }
}

#[cfg(test)]
mod tests;
