//! The value of `OBSERVE`.

use pipeline::config::{EnabledObservers, FlowBounds, PairBounds, StreamBounds};

use super::Mode;
use super::error::Fault;
use super::value::{choice, list};

/// The observers that are enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    sizes: bool,
    flows: bool,
    streams: bool,
    pairs: bool,
}

impl Selection {
    const NONE: Self = Self { sizes: false, flows: false, streams: false, pairs: false };
    const ALL: Self = Self { sizes: true, flows: true, streams: true, pairs: true };

    /// The default. Where packets are relayed or written, only the cheapest observer is enabled.
    pub(super) fn default_of(mode: Mode) -> Self {
        match mode {
            Mode::Capture | Mode::Collect => Self { sizes: true, ..Self::NONE },
            Mode::Observe => Self::ALL,
            Mode::Keygen => Self::NONE,
        }
    }

    /// A list of observers, or `all`, or `none`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let word = choice(&[
            ("sizes", Self { sizes: true, ..Self::NONE }),
            ("flows", Self { flows: true, ..Self::NONE }),
            ("streams", Self { streams: true, ..Self::NONE }),
            ("pairs", Self { pairs: true, ..Self::NONE }),
            ("all", Self::ALL),
            ("none", Self::NONE),
        ]);
        let words = list(text)?;
        if words.len() > 1 && words.iter().any(|word| word.eq_ignore_ascii_case("none")) {
            return Err(Fault::new("combines `none` with observers", "use `none` alone, or remove it"));
        }
        words.into_iter().try_fold(Self::NONE, |selected, text| {
            let other = word(text).map_err(|fault| fault.of_item(text))?;
            Ok(Self {
                sizes: selected.sizes || other.sizes,
                flows: selected.flows || other.flows,
                streams: selected.streams || other.streams,
                pairs: selected.pairs || other.pairs,
            })
        })
    }

    /// The enabled observers with their bounds.
    pub(super) fn bounded(
        self,
        flows: FlowBounds,
        streams: StreamBounds,
        pairs: PairBounds,
    ) -> EnabledObservers {
        EnabledObservers {
            sizes: self.sizes,
            flows: self.flows.then_some(flows),
            streams: self.streams.then_some(streams),
            pairs: self.pairs.then_some(pairs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Selection, &str>) {
        assert_eq!(
            Selection::parse(text).map_err(|fault| fault.to_string()),
            expected.map_err(str::to_owned)
        );
    }

    #[test]
    fn observers() {
        let none = Selection::NONE;
        check("sizes", Ok(Selection { sizes: true, ..none }));
        check("Flows, PAIRS,flows", Ok(Selection { flows: true, pairs: true, ..none }));
        check("streams", Ok(Selection { streams: true, ..none }));
        check("all", Ok(Selection::ALL));
        check("none", Ok(none));
        check("none,sizes", Err("combines `none` with observers (use `none` alone, or remove it)"));
        check(
            "sizes,size",
            Err(
                "contains `size`, which is not a valid value (use one of `sizes`, `flows`, `streams`, `pairs`, \
                 `all`, `none`)",
            ),
        );
    }
}
