//! Hits: opens, clicks, mirror pages and opt-outs, each with a label that gives its class.
//!
//! A hit is one line of the tracking log: 36 bytes, all numbers big-endian. The label and
//! the version of the rules may change later. The rest of a line never does.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | recipient | recipient number |
//! | 4..10 | time | Unix milliseconds |
//! | 10 | kind | [`HitKind`] |
//! | 11 | label | [`HitLabel`] |
//! | 12..14 | rules | version of the rules that gave the label |
//! | 14..16 | link | number of the link of a click; else 65535 |
//! | 16 | signs | bits of [`signs`] |
//! | 17 | unused | 0 |
//! | 18..20 | agent | number of the user agent within the delivery; 65535: none; 65534: not kept |
//! | 20..36 | address | IPv6 address of the client, or its IPv4-mapped address |

use core::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The size of a hit in the tracking log.
pub const HIT_BYTES: usize = 36;
/// Where label and version of the rules are in a hit.
pub const LABEL_AT: usize = 11;
/// The size of label and version of the rules.
pub const LABEL_BYTES: usize = 3;
/// The link of a hit that is not a click.
pub const NO_LINK: u16 = u16::MAX;
/// The user agent of a request that named none.
pub const NO_AGENT: u16 = u16::MAX;

/// What was asked for. The numbers are stored: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HitKind {
    /// The open pixel.
    Open,
    /// A tracked link.
    Click,
    /// The mirror page.
    Mirror,
    /// An opt-out.
    OptOut,
}

impl HitKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Open, Self::Click, Self::Mirror, Self::OptOut];

    /// The word used in the API and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Click => "click",
            Self::Mirror => "mirror",
            Self::OptOut => "opt_out",
        }
    }

    /// The kind with this number, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// Who is taken to have made a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HitClass {
    Human,
    /// Apple Mail Privacy Protection. It fetches pictures even if nobody reads the mail.
    AppleProxy,
    Machine,
}

impl HitClass {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Human, Self::AppleProxy, Self::Machine];

    /// The word used in the API and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::AppleProxy => "apple_proxy",
            Self::Machine => "machine",
        }
    }
}

/// Why a hit has its class. The numbers are stored: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HitLabel {
    /// Nothing suggests a machine.
    Human,
    /// A real open. The image proxy of Gmail or Yahoo fetched the picture.
    ImageProxy,
    /// From a network of mail scanners through which people also browse.
    ProbableScanner,
    /// The user agent of Apple Mail Privacy Protection.
    AppleProxy,
    /// A HEAD request.
    Head,
    /// A request that says it prefetches.
    Prefetch,
    /// A request without a user agent.
    NoAgent,
    /// The user agent of a scanner or a script.
    Agent,
    /// From a network of mail scanners only.
    Network,
    /// Part of five or more clicks of one recipient within a second.
    Burst,
}

impl HitLabel {
    /// All labels, in the order of their numbers.
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

    /// The word used in the API and in logs.
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

    /// The label with this number, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The class of hits with this label.
    pub fn class(self) -> HitClass {
        match self {
            Self::Human | Self::ImageProxy | Self::ProbableScanner => HitClass::Human,
            Self::AppleProxy => HitClass::AppleProxy,
            _ => HitClass::Machine,
        }
    }

    /// Whether the class is certain and not only probable.
    pub fn is_certain(self) -> bool {
        !matches!(self, Self::ProbableScanner)
    }
}

/// Bits for signs of a machine in a request, other than user agent and address.
pub mod signs {
    /// A HEAD request.
    pub const HEAD: u8 = 1;
    /// A header `Sec-Purpose`, `Purpose`, `X-Purpose` or `X-Moz` says prefetch, preview or
    /// prerender.
    pub const PREFETCH: u8 = 2;
}

/// Bits of byte 13 of a ledger's record: which hits the recipient has, as a cache of the tracking
/// log.
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
    /// A human open, click or mirror page: each of them counts as an open.
    pub const OPENED: u8 = HUMAN_OPEN | HUMAN_CLICK | HUMAN_MIRROR;
    /// Any open or click, by a human or not, or a mirror page of a human. Mirror pages of machines
    /// have no bit.
    pub const RAW_OPENED: u8 = OPENED | MACHINE_OPEN | APPLE_OPEN | MACHINE_CLICK;
    /// Any click, by a human or not.
    pub const RAW_CLICKED: u8 = HUMAN_CLICK | MACHINE_CLICK;
}

/// One line of the tracking log. The table at the top of this file explains the fields.
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
    /// The hit as it is stored.
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

    /// Label and version of the rules, as they are stored at [`LABEL_AT`].
    pub fn label_bytes(&self) -> [u8; LABEL_BYTES] {
        let [high, low] = self.rules.to_be_bytes();
        [self.label as u8, high, low]
    }

    /// Reads a stored hit. `None` if kind or label is not one that this program writes.
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

    /// The bits of [`tracked`] that the hit sets in its recipient's record.
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

/// A tracked link of a delivery. Its number is its place in the list, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedLink {
    /// The text, title or alternative text of the link in the mail; else its URL.
    pub label: String,
    /// The target; a template if it has merge fields.
    pub url: String,
    /// Whether the target differs between recipients.
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
