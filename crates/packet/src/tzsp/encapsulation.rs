//! The format of a packet in a datagram.

use crate::LinkType;

/// The formats that TZSP defines numbers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// An Ethernet frame, without preamble and frame check sequence.
    Ethernet,
    /// An 802.11 frame.
    Ieee80211,
    /// A Prism header, then an 802.11 frame.
    Prism,
    /// An AVS header, then an 802.11 frame.
    Avs,
}

impl Encapsulation {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Ethernet, Self::Ieee80211, Self::Prism, Self::Avs];

    /// From the number in a datagram.
    #[inline]
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Ethernet,
            18 => Self::Ieee80211,
            119 => Self::Prism,
            127 => Self::Avs,
            _ => return None,
        })
    }

    /// The number in a datagram, which differs from the link type's.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Ethernet => 1,
            Self::Ieee80211 => 18,
            Self::Prism => 119,
            Self::Avs => 127,
        }
    }

    /// The encapsulation for packets of `link_type`; `None` if TZSP has none.
    #[must_use]
    pub fn of(link_type: LinkType) -> Option<Self> {
        Self::ALL.into_iter().find(|encapsulation| encapsulation.link_type() == link_type)
    }

    /// The link type of packets with this encapsulation.
    #[inline]
    #[must_use]
    pub const fn link_type(self) -> LinkType {
        match self {
            Self::Ethernet => LinkType::ETHERNET,
            Self::Ieee80211 => LinkType::IEEE802_11,
            Self::Prism => LinkType::IEEE802_11_PRISM,
            Self::Avs => LinkType::IEEE802_11_AVS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_link_types_match() {
        for (number, link_type) in [(1, 1), (18, 105), (119, 119), (127, 163)] {
            let encapsulation = Encapsulation::from_number(number).unwrap();
            assert_eq!(encapsulation.link_type(), LinkType(link_type));
            assert_eq!(encapsulation.number(), number);
            assert_eq!(Encapsulation::of(LinkType(link_type)), Some(encapsulation));
        }
        assert_eq!(Encapsulation::of(LinkType::RAW), None);
    }
}
