//! A tracking log as it is read, block by block: which lines get other labels, and what its figures are made of.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    hit::{HIT_BYTES, Hit, HitKind, LABEL_BYTES, NO_AGENT},
    machine_rules::{ClickLine, MachineRules, UserAgent, bursts},
    statistics::StatisticsCount,
};

/// A line of the log that gets another label: what stood there, label and version of its rules, and what stands there from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relabelled {
    pub place: u64,
    pub before: [u8; LABEL_BYTES],
    pub now: [u8; LABEL_BYTES],
}

/// The rules in force, and the user agents of a delivery by number.
pub type RelabelWith = (Arc<MachineRules>, HashMap<u16, String>);

/// What was read so far. Of the lines only clicks are kept: whether they are a burst is known at the end.
#[derive(Debug)]
pub struct Labelling {
    anew: Option<RelabelWith>,
    reckoning: StatisticsCount,
    clicks: Vec<ClickLine>,
    changed: Vec<Relabelled>,
}

impl Labelling {
    /// With `anew` all lines get the labels that its rules give them.
    pub fn new(reckoning: StatisticsCount, anew: Option<RelabelWith>) -> Self {
        Self { anew, reckoning, clicks: Vec::new(), changed: Vec::new() }
    }

    /// Reads a block, from its first line on, those at `places`. False if it is damaged.
    #[must_use]
    pub fn read(&mut self, places: Range<u64>, block: &[u8]) -> bool {
        places.zip(block.as_chunks::<HIT_BYTES>().0).all(|(place, bytes)| {
            let hit = Hit::decode(bytes);
            hit.into_iter().for_each(|hit| self.note(place, hit));
            hit.is_some()
        })
    }

    fn note(&mut self, place: u64, mut hit: Hit) {
        let before = hit.label_bytes();
        if let Some((rules, agents)) = &self.anew {
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
            _ => self.settle(line),
        }
    }

    fn settle(&mut self, ClickLine { hit, place, before }: ClickLine) {
        let now = hit.label_bytes();
        if now != before {
            self.changed.push(Relabelled { place, before, now });
        }
        self.reckoning.note(&hit);
    }

    /// What the figures are made of, and which lines get other labels, in their order.
    pub fn close(mut self) -> (StatisticsCount, Vec<Relabelled>) {
        let mut clicks = std::mem::take(&mut self.clicks);
        bursts(&mut clicks);
        clicks.into_iter().for_each(|click| self.settle(click));
        self.changed.sort_unstable_by_key(|line| line.place);
        (self.reckoning, self.changed)
    }
}
