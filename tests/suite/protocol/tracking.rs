//! The specification of tracking: the effect of a batch of hits on log, counters and records.

use versand::domain::tracking::{Hit, HitKind, HitLabel, NO_AGENT};

use super::{
    mutation::Mutation,
    spec::{Chunk, Terms},
};

/// A recipient number is its chunk times this, plus its position.
pub const CHUNK_SIZE: u32 = 650;
/// The chunk that workers use. Its neighbour is the next chunk, and only tracking changes it.
pub const CHUNK: u32 = 7;
/// Where the positions of the last recipients of a full chunk begin, far from the first ones.
pub const FAR: u16 = 642;
/// The generation of the plan.
pub const PLANNED: u32 = 3;
/// The number of earlier lines in the log: the first block is nearly full.
pub const EARLIER: u64 = BLOCK - 3;
/// The number of lines in a block of the log.
pub const BLOCK: u64 = 4096;

/// The limit of lines for one recipient. A further hit is logged only if it is of a new kind.
const MOST_LINES: u16 = 1000;
/// The limit of user agents that have a number.
const MOST_AGENTS: usize = 10_000;
/// The value in a line of the log if its user agent got no number.
const UNNUMBERED: u16 = 65_534;

/// The tracking flags of a record: the kinds of hits so far, and the number of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cache {
    pub bits: u8,
    pub lines: u16,
}

#[derive(Debug, Clone)]
pub struct Tracking {
    /// The flags of the recipients of both chunks.
    pub caches: [Vec<Cache>; 2],
    /// The log, from line `EARLIER` on.
    pub log: Vec<Hit>,
    /// Hits that are only counted.
    pub beyond: u64,
    /// The index of a user agent is its number.
    pub agents: Vec<String>,
    /// The number of label changes.
    pub labels: u64,
    /// Retention has removed the log.
    pub swept: bool,
}

impl Tracking {
    pub fn new(recipients: [usize; 2], agents: usize) -> Self {
        let agents = (0..agents).map(|n| format!("agent {n}")).collect();
        let caches = recipients.map(|many| vec![Cache::default(); many]);
        Self { caches, log: Vec::new(), beyond: 0, agents, labels: 0, swept: false }
    }

    /// Records a batch of hits, each with its user agent, in the order of their recipients. Returns
    /// how many it recorded.
    pub fn record(
        &mut self,
        chunks: [&mut Chunk; 2],
        generation: u32,
        hits: &[(Hit, &str)],
        terms: &Terms,
    ) -> u64 {
        if generation != PLANNED && terms.mutation != Mutation::HitsOfAnyPlan || self.swept {
            return 0;
        }
        let mut hits = hits.to_vec();
        hits.sort_by_key(|(hit, _)| hit.recipient);
        let (mut recorded, [first, neighbour]) = (0, chunks);
        for (hit, agent) in hits {
            let (chunk, position) = place(&hit);
            let Some(cache) = self
                .caches
                .get_mut(chunk)
                .and_then(|of_chunk| of_chunk.get_mut(usize::from(position)))
            else {
                continue;
            };
            recorded += 1;
            if is_human(hit.label) || terms.mutation == Mutation::ProvedByMachine {
                if chunk == 0 {
                    first.prove(position, terms)
                } else {
                    neighbour.prove(position, terms)
                }
            }
            let bits = cache.bits | bits(&hit);
            if cache.lines >= MOST_LINES
                && bits == cache.bits
                && terms.mutation != Mutation::HitsWithoutLimit
            {
                self.beyond += 1;
                continue;
            }
            *cache = Cache { bits, lines: cache.lines + 1 };
            let agent = self.number_of(agent);
            self.log.push(Hit { agent, ..hit });
        }
        recorded
    }

    fn number_of(&mut self, agent: &str) -> u16 {
        if agent.is_empty() {
            return NO_AGENT;
        }
        let number =
            self.agents.iter().position(|known| known == agent).unwrap_or(self.agents.len());
        if number == MOST_AGENTS {
            return UNNUMBERED;
        }
        if number == self.agents.len() {
            self.agents.push(agent.to_owned());
        }
        number as u16
    }

    /// The lines from line `EARLIER` on, by block.
    pub fn blocks(&self) -> Vec<(u64, Vec<Hit>)> {
        let numbered: Vec<(u64, Hit)> = (EARLIER..).zip(self.log.iter().copied()).collect();
        let of_block = numbered.chunk_by(|(a, _), (b, _)| a / BLOCK == b / BLOCK);
        of_block
            .map(|lines| (lines[0].0 / BLOCK, lines.iter().map(|(_, hit)| *hit).collect()))
            .collect()
    }
}

/// The chunk of a hit, from 0, and the position there.
pub fn place(hit: &Hit) -> (usize, u16) {
    ((hit.recipient / CHUNK_SIZE - CHUNK) as usize, (hit.recipient % CHUNK_SIZE) as u16)
}

fn is_human(label: HitLabel) -> bool {
    matches!(label, HitLabel::Human | HitLabel::ImageProxy | HitLabel::ProbableScanner)
}

/// The tracking flags of a hit.
fn bits(hit: &Hit) -> u8 {
    match (hit.kind, hit.label) {
        (HitKind::Open, HitLabel::ImageProxy) => 1 | 128,
        (HitKind::Open, label) if is_human(label) => 1,
        (HitKind::Open, HitLabel::AppleProxy) => 4,
        (HitKind::Open, _) => 2,
        (HitKind::Click, label) if is_human(label) => 8,
        (HitKind::Click, _) => 16,
        (HitKind::Mirror, label) if is_human(label) => 32,
        (HitKind::Mirror, _) => 0,
        (HitKind::OptOut, _) => 64,
    }
}
