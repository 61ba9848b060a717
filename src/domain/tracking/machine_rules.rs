//! The rules that tell humans from machines and give each hit its label.
//!
//! Their words and networks come from a file in the form of `config/machines.toml`.

use core::net::IpAddr;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::hit::{Hit, HitKind, HitLabel, LABEL_BYTES, signs};

/// `config/machines.toml`, compiled in.
pub const BUILT_IN: &str = include_str!("../../../config/machines.toml");

/// This many clicks of one recipient within [`BURST_MS`] are clicks of a machine.
const BURST_CLICKS: usize = 5;
const BURST_MS: u64 = 1000;

/// The file. `config/machines.toml` explains the fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    version: u16,
    agents: Vec<String>,
    image_proxies: Vec<String>,
    apple_proxies: Vec<String>,
    #[serde(deserialize_with = "networks")]
    machine_networks: Vec<IpNet>,
    #[serde(deserialize_with = "networks")]
    probable_networks: Vec<IpNet>,
}

/// Reads a list of networks, such as `10.0.0.0/8`, and single addresses.
///
/// # Errors
/// A text is neither a network nor an address.
pub fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: String| {
        let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        parsed.map_err(|_| {
            D::Error::custom(format!(
                "{text:?} is neither a network, such as \"10.0.0.0/8\", nor an address"
            ))
        })
    };
    Vec::<String>::deserialize(from)?.into_iter().map(network).collect()
}

/// The rules in force.
#[derive(Debug)]
pub struct MachineRules {
    pub version: u16,
    agents: AhoCorasick,
    image_proxies: AhoCorasick,
    apple_proxies: Vec<String>,
    machine_networks: Vec<IpNet>,
    probable_networks: Vec<IpNet>,
}

impl MachineRules {
    /// Reads the rules from the text of a file.
    ///
    /// # Errors
    /// A text that says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: RulesFile =
            toml::from_str(text).map_err(|e| e.to_string().trim().replace('\n', " "))?;
        let matcher = |name: &str, words: &[String]| {
            if words.iter().any(String::is_empty) {
                return Err(format!("{name}: an empty word is in every user agent"));
            }
            // User agents are short, so a prefilter would cost more than it saves.
            let mut builder = AhoCorasick::builder();
            builder.ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).prefilter(false);
            builder.build(words).map_err(|e| format!("{name}: {e}"))
        };
        Ok(Self {
            version: file.version,
            agents: matcher("agents", &file.agents)?,
            image_proxies: matcher("image_proxies", &file.image_proxies)?,
            apple_proxies: file.apple_proxies,
            machine_networks: file.machine_networks,
            probable_networks: file.probable_networks,
        })
    }

    /// The label of a hit, by its request. If the user agent was not kept, the hit's old label
    /// tells what the user agent was. Bursts are not decided here: see `bursts`.
    pub fn label(&self, kind: HitKind, signs: u8, agent: UserAgent<'_>, from: IpAddr) -> HitLabel {
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&from));
        if signs & signs::HEAD != 0 {
            return HitLabel::Head;
        }
        if signs & signs::PREFETCH != 0 {
            return HitLabel::Prefetch;
        }
        match agent {
            UserAgent::None => return HitLabel::NoAgent,
            UserAgent::Is(agent) if kind == HitKind::Open && self.image_proxies.is_match(agent) => {
                return HitLabel::ImageProxy;
            }
            UserAgent::Is(agent) if self.agents.is_match(agent) => return HitLabel::Agent,
            UserAgent::Is(agent)
                if kind == HitKind::Open
                    && self.apple_proxies.iter().any(|apple| apple == agent) =>
            {
                return HitLabel::AppleProxy;
            }
            _ => {}
        }
        if is_in(&self.machine_networks) {
            return HitLabel::Network;
        }
        if let UserAgent::NotKept(
            before @ (HitLabel::Agent
            | HitLabel::ImageProxy
            | HitLabel::AppleProxy
            | HitLabel::NoAgent),
        ) = agent
        {
            return before;
        }
        if is_in(&self.probable_networks) { HitLabel::ProbableScanner } else { HitLabel::Human }
    }
}

/// The user agent of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserAgent<'a> {
    /// The request named none.
    None,
    Is(&'a str),
    /// The user agent was not kept: the delivery had too many. This is the label that the hit has.
    NotKept(HitLabel),
}

/// A line of the tracking log, with the label that it gets now. Most such lines are clicks.
#[derive(Debug, Clone, Copy)]
pub struct ClickLine {
    pub hit: Hit,
    /// The number of the line in the log, from 0.
    pub place: u64,
    /// The old label and version of the rules, as stored.
    pub before: [u8; LABEL_BYTES],
}

/// Sorts clicks by recipient and time, and labels those that belong to a burst: five or more clicks
/// of one recipient within a second. The first four of them are labelled, too.
pub fn bursts(clicks: &mut [ClickLine]) {
    clicks.sort_unstable_by_key(|click| (click.hit.recipient, click.hit.at_ms, click.place));
    for of_one in clicks.chunk_by_mut(|a, b| a.hit.recipient == b.hit.recipient) {
        let mut marked = 0;
        for end in BURST_CLICKS..=of_one.len() {
            let first = end - BURST_CLICKS;
            if of_one[end - 1].hit.at_ms - of_one[first].hit.at_ms < BURST_MS {
                of_one[first.max(marked)..end]
                    .iter_mut()
                    .for_each(|click| click.hit.label = HitLabel::Burst);
                marked = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hit::{NO_AGENT, NO_LINK};
    use super::*;

    fn label(kind: HitKind, signs: u8, agent: UserAgent<'_>, from: &str) -> HitLabel {
        MachineRules::parse(BUILT_IN).expect("rules").label(
            kind,
            signs,
            agent,
            from.parse().expect("an address"),
        )
    }

    #[test]
    fn humans_and_machines_are_told_apart() {
        const FIREFOX: &str =
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
        const GMAIL: &str = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 \
                             (via ggpht.com GoogleImageProxy)";
        let home = "203.0.113.7";
        for (kind, signs, agent, from, expected) in [
            (HitKind::Open, 0, UserAgent::Is(FIREFOX), home, HitLabel::Human),
            (HitKind::Click, 0, UserAgent::Is(FIREFOX), home, HitLabel::Human),
            (HitKind::Click, signs::HEAD, UserAgent::Is(FIREFOX), home, HitLabel::Head),
            (HitKind::Click, signs::PREFETCH, UserAgent::Is(FIREFOX), home, HitLabel::Prefetch),
            (HitKind::Open, 0, UserAgent::None, home, HitLabel::NoAgent),
            (HitKind::Open, 0, UserAgent::NotKept(HitLabel::Human), home, HitLabel::Human),
            (
                HitKind::Open,
                0,
                UserAgent::NotKept(HitLabel::ProbableScanner),
                home,
                HitLabel::Human,
            ),
            (
                HitKind::Open,
                0,
                UserAgent::NotKept(HitLabel::ImageProxy),
                home,
                HitLabel::ImageProxy,
            ),
            (
                HitKind::Click,
                0,
                UserAgent::NotKept(HitLabel::Agent),
                "67.231.144.9",
                HitLabel::Agent,
            ),
            (
                HitKind::Click,
                0,
                UserAgent::NotKept(HitLabel::Agent),
                "40.93.1.1",
                HitLabel::Network,
            ),
            (
                HitKind::Click,
                signs::HEAD,
                UserAgent::NotKept(HitLabel::Agent),
                home,
                HitLabel::Head,
            ),
            (HitKind::Click, 0, UserAgent::Is("Python-Requests/2.32"), home, HitLabel::Agent),
            (HitKind::Open, 0, UserAgent::Is(GMAIL), "66.249.84.1", HitLabel::ImageProxy),
            (
                HitKind::Open,
                0,
                UserAgent::Is("YahooMailProxy; https://help.yahoo.com"),
                home,
                HitLabel::ImageProxy,
            ),
            // an image proxy never follows a link, so a click with its user agent is no machine's
            (HitKind::Click, 0, UserAgent::Is(GMAIL), home, HitLabel::Human),
            (HitKind::Open, 0, UserAgent::Is("Mozilla/5.0"), "104.28.1.1", HitLabel::AppleProxy),
            (HitKind::Click, 0, UserAgent::Is("Mozilla/5.0"), "104.28.1.1", HitLabel::Human),
            (
                HitKind::Open,
                0,
                UserAgent::Is("Mozilla/5.0 (Macintosh)"),
                "104.28.1.1",
                HitLabel::Human,
            ),
            (HitKind::Open, 0, UserAgent::Is(FIREFOX), "40.93.1.1", HitLabel::Network),
            (HitKind::Click, 0, UserAgent::Is(FIREFOX), "52.103.255.1", HitLabel::Network),
            (HitKind::Click, 0, UserAgent::Is(FIREFOX), "52.104.0.1", HitLabel::Human),
            (HitKind::Click, 0, UserAgent::Is(FIREFOX), "67.231.144.9", HitLabel::ProbableScanner),
        ] {
            assert_eq!(
                label(kind, signs, agent, from),
                expected,
                "{kind:?} {signs} {agent:?} {from}"
            );
        }
    }

    #[test]
    fn the_error_of_a_bad_file_says_why() {
        assert!(MachineRules::parse("version = 1").is_err_and(|e| e.contains("agents")));
        let address = BUILT_IN.replace("40.92.0.0/15", "192.0.2.7");
        assert!(MachineRules::parse(&address).is_ok_and(|rules| {
            rules.machine_networks.iter().any(|net| net.to_string() == "192.0.2.7/32")
        }));
        let name = BUILT_IN.replace("40.92.0.0/15", "scanner.example");
        assert!(
            MachineRules::parse(&name)
                .is_err_and(|e| e.contains("\"scanner.example\" is neither a network"))
        );
        assert!(MachineRules::parse(&BUILT_IN.replace("40.92.0.0/15", "40.92.0.0/33")).is_err());
        assert!(
            MachineRules::parse(&BUILT_IN.replace("\"curl/\"", "\"\""))
                .is_err_and(|e| e.contains("empty word"))
        );
    }

    #[test]
    fn five_clicks_within_a_second_are_a_burst() {
        let click = |(recipient, at_ms)| {
            let (kind, label, from) =
                (HitKind::Click, HitLabel::Human, IpAddr::from([192, 0, 2, 1]));
            let hit = Hit {
                recipient,
                at_ms,
                kind,
                label,
                rules: 1,
                link: NO_LINK,
                signs: 0,
                agent: NO_AGENT,
                from,
            };
            ClickLine { hit, place: at_ms, before: hit.label_bytes() }
        };
        let found = |clicks: &[(u32, u64)]| -> Vec<u64> {
            let mut clicks: Vec<ClickLine> = clicks.iter().copied().map(click).collect();
            bursts(&mut clicks);
            clicks
                .iter()
                .filter(|click| click.hit.label == HitLabel::Burst)
                .map(|click| click.place)
                .collect()
        };
        let mut clicks = [0, 5000, 5100, 5200, 5300, 5999, 6200].map(|at| (1, at)).to_vec();
        clicks.extend([0, 250, 500, 750, 1000].map(|at| (2, at)));
        assert_eq!(
            found(&clicks),
            [5000, 5100, 5200, 5300, 5999],
            "6200 has only two others within a second before it"
        );
        // the order in which they were recorded does not matter
        clicks.reverse();
        assert_eq!(found(&clicks).len(), 5);
        clicks.push((2, 999));
        assert_eq!(found(&clicks).len(), 5 + 6);
    }
}
