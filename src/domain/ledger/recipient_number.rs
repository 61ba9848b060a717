//! Recipient numbers: number = chunk x chunk size + position; with several waves there are gaps.

use crate::domain::delivery::{DeliveryId, Plan};

/// One chunk of one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    pub delivery: DeliveryId,
    pub chunk: u32,
}

/// Chunk and position of a recipient by its number in the sending log, from 0.
pub fn locate(plan: &Plan, number: u64) -> Option<(u32, u16)> {
    let size = u64::from(plan.chunk_size);
    let chunk = u32::try_from(number / size).ok().filter(|chunk| *chunk < plan.chunks)?;
    // the last chunks of several waves are not full: there it is the ledger that knows
    (plan.waves > 1 || number < plan.to_deliver).then_some(())?;
    Some((chunk, u16::try_from(number % size).ok()?))
}
