//! The recipients of a chunk that are still to be claimed, in order.

use std::collections::{HashMap, VecDeque};

use crate::{domain::ledger::Ledger, store::chunks::Report};

/// The positions that are to be claimed, and the ordinals that their claims get.
pub(super) struct ClaimQueue {
    pub positions: VecDeque<u16>,
    /// The ordinal of the last claim, for recipients that were given back in this epoch.
    given_back: HashMap<u16, u8>,
}

impl ClaimQueue {
    pub(super) fn new(positions: Vec<u16>) -> Self {
        Self { positions: positions.into(), given_back: HashMap::new() }
    }

    /// Queues a recipient again after its claim was given back.
    pub(super) fn put_back(&mut self, report: &Report) {
        self.given_back.insert(report.position, report.claim.n);
        self.positions.push_back(report.position);
    }

    /// Returns the ordinal of the recipient's next claim within `epoch`.
    ///
    /// Returns `None` if no ordinal is left, or if the ledger has no such position.
    pub(super) fn next_ordinal(&self, position: u16, ledger: &Ledger, epoch: u32) -> Option<u8> {
        if let Some(last) = self.given_back.get(&position) {
            return last.checked_add(1);
        }
        let last = ledger.record(usize::from(position))?.claim;
        Some(if last.epoch == epoch { last.n.wrapping_add(1) } else { 1 })
    }
}
