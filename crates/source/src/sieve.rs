//! Filter and snaplen for packets that no kernel has filtered: those of files, and those that came by TZSP.

use std::sync::Arc;

use batch::{Batch, Interface};
use packet::{LinkType, Record, Records, Timestamp};
use pcap::{BpfProgram, Capture, Linktype};

use crate::outlet::{Outlet, Run, now};
use crate::packer::{Lane, Pace, Packer};

/// A filter that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("FILTER: `{filter}` does not compile for packets of {link_type}: {why}")]
pub struct FilterError {
    /// The expression.
    pub filter: String,
    /// What the packets begin with.
    pub link_type: LinkType,
    /// What libpcap says.
    pub why: String,
}

/// Which packets are kept, and how much of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// A pcap-filter expression.
    pub filter: Option<String>,
    /// Bytes kept of a packet.
    pub snaplen: u32,
}

impl Mesh {
    /// Whether it keeps everything as it is.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.filter.is_none() && self.snaplen as usize >= packet::record::MAX_CAPTURED
    }

    /// The filter's program for packets of this link type.
    ///
    /// # Errors
    /// The filter is wrong, or makes no sense there.
    pub fn compile(&self, link_type: LinkType) -> Result<Option<BpfProgram>, FilterError> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let failed = |error: pcap::Error| FilterError {
            filter: filter.clone(),
            link_type,
            why: match error {
                pcap::Error::PcapError(why) => why,
                other => other.to_string(),
            },
        };
        let dead = Capture::dead(Linktype(link_type.to_dlt().cast_signed())).map_err(failed)?;
        dead.compile(filter, true).map(Some).map_err(|error| {
            let mut error = failed(error);
            error.why.push_str(&whereabouts(filter, |part| dead.compile(part, true).is_ok()));
            error
        })
    }
}

/// Where in a filter the fault may be, which libpcap does not say: behind its longest beginning that makes sense by itself.
pub(crate) fn whereabouts(filter: &str, compiles: impl Fn(&str) -> bool) -> String {
    let ends = filter.char_indices().filter(|(_, c)| c.is_whitespace()).map(|(at, _)| at);
    let beginnings = ends.map(|end| filter[..end].trim_end()).filter(|part| !part.is_empty());
    match beginnings.filter(|part| compiles(part)).last() {
        Some(sound) => format!(", behind `{sound}`"),
        None => ", at its beginning".to_owned(),
    }
}

/// Lets through what the mesh lets through. It stands between a source and its outlet.
pub struct Sieve<'a> {
    mesh: Mesh,
    packer: Packer<'a>,
    known: Vec<Known>,
    pace: Pace,
    watermark: Timestamp,
}

/// An interface whose packets come.
struct Known {
    interface: Arc<Interface>,
    lane: Lane,
    /// `None`: everything passes.
    program: Option<BpfProgram>,
    /// The filter makes no sense for this link type: nothing passes.
    blocked: bool,
}

impl<'a> Sieve<'a> {
    /// In front of `outlet`. The source before it is given [`Run::uncounted`].
    pub fn new(mesh: Mesh, outlet: &'a mut dyn Outlet, run: Run, pace: Pace) -> Self {
        let packer = Packer::new(outlet, run, pace);
        Self { mesh, packer, known: Vec::new(), pace, watermark: Timestamp::ZERO }
    }

    /// The place of an interface among those that are known.
    fn place(&mut self, interface: &Arc<Interface>) -> usize {
        if let Some(at) = self.known.iter().position(|known| Arc::ptr_eq(&known.interface, interface)) {
            return at;
        }
        let (program, blocked) = match self.mesh.compile(interface.link_type) {
            Ok(program) => (program, false),
            Err(error) => {
                tracing::warn!(origin = %interface.origin, %error, "none of this origin's packets pass the filter");
                (None, true)
            }
        };
        let described = Interface {
            snaplen: interface.snaplen.min(self.mesh.snaplen),
            filter: self.mesh.filter.as_deref().unwrap_or(&interface.filter).into(),
            ..(**interface).clone()
        };
        let lane = self.packer.open(Arc::new(described));
        self.known.push(Known { interface: Arc::clone(interface), lane, program, blocked });
        self.known.len() - 1
    }

    /// Ends every origin, once no packet comes any more.
    pub fn end(self) {
        self.packer.end(self.watermark);
    }
}

impl Outlet for Sieve<'_> {
    fn send(&mut self, batch: Batch) {
        let at = self.place(batch.interface());
        let info = *batch.close_info();
        let Some(known) = self.known.get(at) else { return };
        self.packer.set_dropped(known.lane, info.dropped_kernel, info.dropped_interface);
        self.watermark = self.watermark.max(info.watermark);
        if !known.blocked {
            for record in Records::new(batch.payload()) {
                if known.program.as_ref().is_none_or(|program| program.filter(record.bytes)) {
                    let kept = record.bytes.get(..self.mesh.snaplen as usize).unwrap_or(record.bytes);
                    self.packer.push(known.lane, &Record { bytes: kept, ..record });
                }
            }
        }
        // The promise is this origin's; what others have to come, their own batches say.
        if self.pace != Pace::Stored {
            self.packer.tick_lane(known.lane, now(), Some(info.watermark));
        }
    }

    fn spare(&mut self) -> Vec<u8> {
        Vec::new()
    }
}
