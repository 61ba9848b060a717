//! What comes back from recipients: opens, clicks, mirror pages and opt-outs, each with a label that says whether a human did it.
//!
//! A hit is stored in 36 bytes, numbers big-endian. Nothing is dropped: labels change, hits stay.
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | number of the recipient in the sending log |
//! | 4..10 | when, Unix milliseconds |
//! | 10 | kind |
//! | 11 | label |
//! | 12..14 | version of the rules that gave the label |
//! | 14..16 | number of the link, of a click; else 65535 |
//! | 16 | signs of its request |
//! | 17 | 0 |
//! | 18..20 | number of the user agent among those of the delivery; 65535 if there was none, 65534 if it is not kept |
//! | 20..36 | address it came from, IPv6 or IPv4-mapped |

use core::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub const HIT_BYTES: usize = 36;
/// Where the label and the version of its rules stand in a hit.
pub const LABEL_AT: usize = 11;
pub const LABEL_BYTES: usize = 3;
pub const NO_LINK: u16 = u16::MAX;
pub const NO_AGENT: u16 = u16::MAX;

/// What was asked for. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HitKind {
    Open,
    Click,
    Mirror,
    OptOut,
}

impl HitKind {
    pub const ALL: [Self; 4] = [Self::Open, Self::Click, Self::Mirror, Self::OptOut];

    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Click => "click",
            Self::Mirror => "mirror",
            Self::OptOut => "opt_out",
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// Who is taken to have done it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HitClass {
    Human,
    /// Apple Mail Privacy Protection fetches whether somebody reads or not.
    AppleProxy,
    Machine,
}

impl HitClass {
    pub const ALL: [Self; 3] = [Self::Human, Self::AppleProxy, Self::Machine];

    pub fn word(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::AppleProxy => "apple_proxy",
            Self::Machine => "machine",
        }
    }
}

/// Why a hit is of its class. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HitLabel {
    /// Nothing speaks against it.
    Human,
    /// A real open, fetched through the image proxy of Gmail or Yahoo.
    ImageProxy,
    /// From a network of mail scanners that people browse through, too.
    ProbableScanner,
    AppleProxy,
    Head,
    Prefetch,
    NoAgent,
    /// Its user agent is that of a scanner or a script.
    Agent,
    /// From a network of mail scanners.
    Network,
    /// One of five clicks of one recipient within a second.
    Burst,
}

impl HitLabel {
    pub const ALL: [Self; 10] = [
        Self::Human,
        Self::ImageProxy,
        Self::ProbableScanner,
        Self::AppleProxy,
        Self::Head,
        Self::Prefetch,
        Self::NoAgent,
        Self::Agent,
        Self::Network,
        Self::Burst,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::ImageProxy => "image_proxy",
            Self::ProbableScanner => "probable_scanner",
            Self::AppleProxy => "apple_proxy",
            Self::Head => "head",
            Self::Prefetch => "prefetch",
            Self::NoAgent => "no_agent",
            Self::Agent => "agent",
            Self::Network => "network",
            Self::Burst => "burst",
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    pub fn class(self) -> HitClass {
        match self {
            Self::Human | Self::ImageProxy | Self::ProbableScanner => HitClass::Human,
            Self::AppleProxy => HitClass::AppleProxy,
            _ => HitClass::Machine,
        }
    }

    /// Whether the class is more than probable.
    pub fn is_certain(self) -> bool {
        !matches!(self, Self::ProbableScanner)
    }
}

/// Bits of what a request showed beside agent and address.
pub mod signs {
    pub const HEAD: u8 = 1;
    /// `Sec-Purpose`, `Purpose`, `X-Purpose` or `X-Moz` with prefetch, preview or prerender.
    pub const PREFETCH: u8 = 2;
}

/// Bits of the first tracking byte of a ledger's record: a cache of the tracking log.
pub mod tracked {
    pub const HUMAN_OPEN: u8 = 1;
    pub const MACHINE_OPEN: u8 = 2;
    pub const APPLE_OPEN: u8 = 4;
    pub const HUMAN_CLICK: u8 = 8;
    pub const MACHINE_CLICK: u8 = 16;
    pub const HUMAN_MIRROR: u8 = 32;
    pub const OPT_OUT: u8 = 64;
    /// A human open came through an image proxy.
    pub const PROXIED_OPEN: u8 = 128;
    /// Any of these counts as an open: a human click implies one.
    pub const OPENED: u8 = HUMAN_OPEN | HUMAN_CLICK | HUMAN_MIRROR;
    /// The same by whomever; of mirror pages only those of humans are noted.
    pub const RAW_OPENED: u8 = OPENED | MACHINE_OPEN | APPLE_OPEN | MACHINE_CLICK;
    pub const RAW_CLICKED: u8 = HUMAN_CLICK | MACHINE_CLICK;
}

/// One line of the tracking log, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    pub recipient: u32,
    pub at_ms: u64,
    pub kind: HitKind,
    pub label: HitLabel,
    pub rules: u16,
    pub link: u16,
    pub signs: u8,
    pub agent: u16,
    pub from: IpAddr,
}

impl Hit {
    pub fn encode(&self) -> [u8; HIT_BYTES] {
        let mut b = [0; HIT_BYTES];
        b[..4].copy_from_slice(&self.recipient.to_be_bytes());
        b[4..10].copy_from_slice(&self.at_ms.to_be_bytes()[2..]);
        b[10] = self.kind as u8;
        b[LABEL_AT..LABEL_AT + LABEL_BYTES].copy_from_slice(&self.label_bytes());
        b[14..16].copy_from_slice(&self.link.to_be_bytes());
        b[16] = self.signs;
        b[18..20].copy_from_slice(&self.agent.to_be_bytes());
        let from = match self.from {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        b[20..].copy_from_slice(&from.octets());
        b
    }

    /// Its label and the version of its rules, as they are stored.
    pub fn label_bytes(&self) -> [u8; LABEL_BYTES] {
        let [high, low] = self.rules.to_be_bytes();
        [self.label as u8, high, low]
    }

    /// `None` if kind or label are not what this program writes.
    pub fn decode(b: &[u8; HIT_BYTES]) -> Option<Self> {
        let u16_at = |at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
        let mut from = [0; 16];
        from.copy_from_slice(&b[20..]);
        Some(Self {
            recipient: u32::from_be_bytes([b[0], b[1], b[2], b[3]]),
            at_ms: u64::from_be_bytes([0, 0, b[4], b[5], b[6], b[7], b[8], b[9]]),
            kind: HitKind::from_code(b[10])?,
            label: HitLabel::from_code(b[LABEL_AT])?,
            rules: u16_at(12),
            link: u16_at(14),
            signs: b[16],
            agent: u16_at(18),
            from: IpAddr::V6(Ipv6Addr::from(from)).to_canonical(),
        })
    }

    /// What it sets in its recipient's record.
    pub fn tracked(&self) -> u8 {
        use tracked::{
            APPLE_OPEN, HUMAN_CLICK, HUMAN_MIRROR, HUMAN_OPEN, MACHINE_CLICK, MACHINE_OPEN,
            OPT_OUT, PROXIED_OPEN,
        };
        match (self.kind, self.label.class()) {
            (HitKind::Open, HitClass::Human) if self.label == HitLabel::ImageProxy => {
                HUMAN_OPEN | PROXIED_OPEN
            }
            (HitKind::Open, HitClass::Human) => HUMAN_OPEN,
            (HitKind::Open, HitClass::AppleProxy) => APPLE_OPEN,
            (HitKind::Open, HitClass::Machine) => MACHINE_OPEN,
            (HitKind::Click, HitClass::Human) => HUMAN_CLICK,
            (HitKind::Click, _) => MACHINE_CLICK,
            (HitKind::Mirror, HitClass::Human) => HUMAN_MIRROR,
            (HitKind::Mirror, _) => 0,
            (HitKind::OptOut, _) => OPT_OUT,
        }
    }
}

/// A tracked link of a delivery; its number is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedLink {
    /// Its text, title or alternative text in the mail; else its address.
    pub label: String,
    /// Where it leads: a template if it has merge fields.
    pub url: String,
    /// Whether it differs between recipients.
    pub merged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_read_as_it_was_written() {
        for from in ["192.0.2.7", "2001:db8::1"] {
            let hit = Hit {
                recipient: 77_001,
                at_ms: 1_790_000_000_123,
                kind: HitKind::Click,
                label: HitLabel::Network,
                rules: 3,
                link: 12,
                signs: signs::HEAD,
                agent: NO_AGENT,
                from: from.parse().expect("an address"),
            };
            assert_eq!(Hit::decode(&hit.encode()), Some(hit));
        }
        let mut unknown = [0; HIT_BYTES];
        unknown[LABEL_AT] = 10;
        assert_eq!(Hit::decode(&unknown), None);
    }

    #[test]
    fn words_and_codes_agree() {
        for (code, label) in (0..).zip(HitLabel::ALL) {
            assert_eq!((label as u8, HitLabel::from_code(code)), (code, Some(label)));
            assert_eq!(serde_json::to_value(label).expect("a word"), label.word());
        }
        for kind in HitKind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("a word"), kind.word());
        }
    }
}
