//! What is measured.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Mode;
use super::error::Fault;
use super::value;

/// What is measured, each with its bounds; what is absent is not measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObserverSettings {
    /// Lengths of packets.
    pub(crate) sizes: bool,
    /// Bytes and packets, by addresses and protocol.
    pub(crate) flows: Option<FlowSettings>,
    /// The health of every TCP stream.
    pub(crate) streams: Option<StreamSettings>,
    /// TCP between pairs of hosts.
    pub(crate) pairs: Option<PairSettings>,
}

/// The bounds of the observer of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowSettings {
    /// When a silent flow is forgotten, in packet time.
    pub(crate) age: Duration,
    /// The most flows known at a time.
    pub(crate) max: NonZeroU32,
}

/// The bounds of the observer of TCP streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamSettings {
    /// When a silent stream is forgotten, in packet time.
    pub(crate) age: Duration,
    /// When a stream that has ended is forgotten, in packet time.
    pub(crate) finalized_age: Duration,
    /// The most streams known at a time, each direction counted.
    pub(crate) max: NonZeroU32,
    /// The most streams in one scrape.
    pub(crate) export: u32,
}

/// The bounds of the observer of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairSettings {
    /// When a silent pair is forgotten, in packet time.
    pub(crate) age: Duration,
    /// The most pairs known at a time.
    pub(crate) max: NonZeroU32,
}

/// Which observers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) sizes: bool,
    pub(super) flows: bool,
    pub(super) streams: bool,
    pub(super) pairs: bool,
}

/// What `OBSERVE` can say.
const WORDS: [(&str, Chosen); 6] = [
    ("sizes", Chosen { sizes: true, ..Chosen::NONE }),
    ("flows", Chosen { flows: true, ..Chosen::NONE }),
    ("streams", Chosen { streams: true, ..Chosen::NONE }),
    ("pairs", Chosen { pairs: true, ..Chosen::NONE }),
    ("all", Chosen::ALL),
    ("none", Chosen::NONE),
];

impl Chosen {
    const NONE: Self = Self { sizes: false, flows: false, streams: false, pairs: false };
    const ALL: Self = Self { sizes: true, flows: true, streams: true, pairs: true };

    /// What runs where nothing is chosen. Beside a relay, only what costs next to nothing.
    pub(super) fn of_mode(mode: Mode) -> Self {
        match mode {
            Mode::Capture | Mode::Collect => Self { sizes: true, ..Self::NONE },
            Mode::Observe => Self::ALL,
        }
    }

    /// A list of observers, or `all`, or `none`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let words = value::list(text)?;
        let none = words.iter().any(|word| word.eq_ignore_ascii_case("none"));
        if none && words.len() > 1 {
            return Err(Fault::new("says `none`, and more", "drop `none`, or all the others"));
        }
        let mut chosen = Self::NONE;
        for word in words {
            chosen = chosen.and(value::choice(word, &WORDS).map_err(|fault| fault.of_item(word))?);
        }
        Ok(chosen)
    }

    fn and(self, other: Self) -> Self {
        Self {
            sizes: self.sizes || other.sizes,
            flows: self.flows || other.flows,
            streams: self.streams || other.streams,
            pairs: self.pairs || other.pairs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Chosen, &str>) {
        assert_eq!(Chosen::parse(text).map_err(|fault| fault.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn lists_of_observers() {
        let none = Chosen::NONE;
        check("sizes", Ok(Chosen { sizes: true, ..none }));
        check("Flows, PAIRS,flows", Ok(Chosen { flows: true, pairs: true, ..none }));
        check("streams", Ok(Chosen { streams: true, ..none }));
        check("all", Ok(Chosen::ALL));
        check("none", Ok(none));
        check("none,sizes", Err("says `none`, and more (drop `none`, or all the others)"));
        check(
            "sizes,size",
            Err(
                "holds `size`, which is not known (one of `sizes`, `flows`, `streams`, `pairs`, `all`, `none`)",
            ),
        );
    }
}
