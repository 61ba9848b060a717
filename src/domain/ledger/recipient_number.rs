//! Recipient numbers: how all logs name a recipient, and where its record is.

use crate::domain::delivery::{DeliveryId, Plan};

/// One chunk of one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    pub delivery: DeliveryId,
    pub chunk: u32,
}

/// The number of a recipient in the sending log, from 0: chunk × chunk size + position.
/// With several waves there may be gaps, because the last chunk of a wave may not be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecipientNumber(pub u64);

impl RecipientNumber {
    /// The number of the recipient at `position` of `chunk`, both from 0.
    pub fn of(chunk: u32, position: u16, chunk_size: u32) -> Self {
        Self(u64::from(chunk) * u64::from(chunk_size) + u64::from(position))
    }

    /// Chunk and position. `None` if `chunk_size` is 0, or if one of them is out of its range.
    pub fn place(self, chunk_size: u32) -> Option<(u32, u16)> {
        let size = u64::from(chunk_size);
        let chunk = u32::try_from(self.0.checked_div(size)?).ok()?;
        Some((chunk, u16::try_from(self.0 % size).ok()?))
    }

    /// Chunk and position in a plan. `None` if the plan has no such recipient. With several waves,
    /// a number in a gap is not refused.
    pub fn place_in(self, plan: &Plan) -> Option<(u32, u16)> {
        let (chunk, position) = self.place(plan.chunk_size)?;
        // With several waves, only the ledgers show which chunks are full.
        let is_there = chunk < plan.chunks && (plan.waves > 1 || self.0 < plan.to_deliver);
        is_there.then_some((chunk, position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_leads_back_to_its_place() {
        for (chunk, position, size) in [(0, 0, 1), (7, 499, 500), (u32::MAX, u16::MAX, 65_536)] {
            let number = RecipientNumber::of(chunk, position, size);
            assert_eq!(number.place(size), Some((chunk, position)));
        }
        assert_eq!(RecipientNumber(3).place(0), None);
        assert_eq!(RecipientNumber(u64::MAX).place(500), None);
    }
}
