//! Reads a tracking log block by block: counts its lines, and finds lines that get new labels.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    hit::{HIT_BYTES, Hit, HitKind, LABEL_BYTES, NO_AGENT},
    machine_rules::{ClickLine, MachineRules, UserAgent, bursts},
    statistics::StatisticsCount,
};

/// A line of the tracking log that gets a new label, or the version of newer rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relabelled {
    /// The number of the line in the log, from 0.
    pub place: u64,
    /// The old label and version of the rules, as stored.
    pub before: [u8; LABEL_BYTES],
    /// The new label and version of the rules, as stored.
    pub now: [u8; LABEL_BYTES],
}

/// The rules in force, and the user agents of a delivery by their numbers.
pub type RelabelWith = (Arc<MachineRules>, HashMap<u16, String>);

/// A tracking log that is being read. Clicks are kept until the end, because bursts are known only
/// then.
#[derive(Debug)]
pub struct Labelling {
    relabel_with: Option<RelabelWith>,
    statistics: StatisticsCount,
    clicks: Vec<ClickLine>,
    changed: Vec<Relabelled>,
}

impl Labelling {
    /// Nothing is read yet. With `relabel_with`, every line gets the label of these rules.
    pub fn new(statistics: StatisticsCount, relabel_with: Option<RelabelWith>) -> Self {
        Self { relabel_with, statistics, clicks: Vec::new(), changed: Vec::new() }
    }

    /// Reads the lines of a block. `places`: their numbers in the log. Returns false if a line is
    /// damaged.
    #[must_use]
    pub fn read(&mut self, places: Range<u64>, block: &[u8]) -> bool {
        places.zip(block.as_chunks::<HIT_BYTES>().0).all(|(place, bytes)| {
            let hit = Hit::decode(bytes);
            hit.into_iter().for_each(|hit| self.add(place, hit));
            hit.is_some()
        })
    }

    fn add(&mut self, place: u64, mut hit: Hit) {
        let before = hit.label_bytes();
        if let Some((rules, agents)) = &self.relabel_with {
            let agent = match hit.agent {
                NO_AGENT => UserAgent::None,
                number => agents
                    .get(&number)
                    .map_or(UserAgent::NotKept(hit.label), |agent| UserAgent::Is(agent)),
            };
            hit.label = rules.label(hit.kind, hit.signs, agent, hit.from);
            hit.rules = rules.version;
        }
        let line = ClickLine { hit, place, before };
        match hit.kind {
            HitKind::Click => self.clicks.push(line),
            _ => self.count(line),
        }
    }

    fn count(&mut self, ClickLine { hit, place, before }: ClickLine) {
        let now = hit.label_bytes();
        if now != before {
            self.changed.push(Relabelled { place, before, now });
        }
        self.statistics.add(&hit);
    }

    /// Ends the log. Returns the counts and, in the order of the log, the lines whose label or
    /// version of the rules is new.
    pub fn finish(mut self) -> (StatisticsCount, Vec<Relabelled>) {
        let mut clicks = std::mem::take(&mut self.clicks);
        bursts(&mut clicks);
        clicks.into_iter().for_each(|click| self.count(click));
        self.changed.sort_unstable_by_key(|line| line.place);
        (self.statistics, self.changed)
    }
}
