//! How often each origin is in use, and which origins are out of use.

use std::collections::VecDeque;

use crate::OriginId;

/// How many origins are kept that are out of use, in case they come back. A capture remembers as many routers that send
/// TZSP.
const MAX_RELEASED: usize = 4096;

/// The holders of each origin.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    /// By number.
    origins: Vec<Holding>,
    /// Origins that lost their last holder, and how often that had happened, oldest first.
    released: VecDeque<(OriginId, u32)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    holders: u32,
    /// How often the last holder went.
    releases: u32,
}

impl Holders {
    /// Notes a holder of an origin.
    pub(crate) fn add(&mut self, id: OriginId) {
        if id.index() >= self.origins.len() {
            self.origins.resize(id.index() + 1, Holding::default());
        }
        let holding = &mut self.origins[id.index()];
        holding.holders = holding.holders.saturating_add(1);
    }

    /// Takes back a holder. Returns an origin that is to be forgotten, to make room.
    pub(crate) fn remove(&mut self, id: OriginId) -> Option<OriginId> {
        let holding = self.origins.get_mut(id.index())?;
        holding.holders = holding.holders.saturating_sub(1);
        if holding.holders == 0 {
            holding.releases = holding.releases.wrapping_add(1);
            self.released.push_back((id, holding.releases));
        }
        if self.released.len() <= MAX_RELEASED {
            return None;
        }
        let (oldest, releases) = self.released.pop_front()?;
        let holding = self.origins.get(oldest.index())?;
        // It may have come back since.
        (holding.holders == 0 && holding.releases == releases).then_some(oldest)
    }

    /// Forgets the holders of an origin.
    pub(crate) fn clear(&mut self, id: OriginId) {
        if let Some(holding) = self.origins.get_mut(id.index()) {
            // What was released does not concern the next origin with this number.
            *holding = Holding { holders: 0, releases: holding.releases.wrapping_add(1) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = MAX_RELEASED as u32;

    #[test]
    fn the_first_released_make_room_for_later_ones() {
        let mut holders = Holders::default();
        let forgotten: Vec<_> = (0..MAX + 2)
            .filter_map(|id| {
                holders.add(OriginId(id));
                holders.remove(OriginId(id))
            })
            .collect();
        assert_eq!(forgotten, [OriginId(0), OriginId(1)]);
        assert_eq!(holders.released.len(), MAX_RELEASED);
    }

    #[test]
    fn an_origin_with_a_holder_is_kept() {
        let mut holders = Holders::default();
        // It has two, and one goes; another one comes back.
        for id in [0, 0, 1] {
            holders.add(OriginId(id));
        }
        assert_eq!((holders.remove(OriginId(0)), holders.remove(OriginId(1))), (None, None));
        holders.add(OriginId(1));
        let rest = 2..2 * MAX;
        rest.clone().for_each(|id| holders.add(OriginId(id)));
        let forgotten: Vec<_> = rest.filter_map(|id| holders.remove(OriginId(id))).collect();
        assert_eq!(forgotten.first(), Some(&OriginId(2)));
    }

    #[test]
    fn a_number_that_is_used_again_is_not_forgotten_for_what_had_it_before() {
        let mut holders = Holders::default();
        holders.add(OriginId(0));
        assert_eq!(holders.remove(OriginId(0)), None);
        holders.clear(OriginId(0));
        // The next origin with this number has no holder at all, like those of a collector.
        let forgotten: Vec<_> = (1..=MAX)
            .filter_map(|id| {
                holders.add(OriginId(id));
                holders.remove(OriginId(id))
            })
            .collect();
        assert_eq!(forgotten, []);
    }
}
