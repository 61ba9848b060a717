//! Notes the messages of a preparation in the message index, which serves fatigue and history.

use super::preparation::Preparation;
use crate::{
    domain::{audience::AddressKey, ledger::RecipientNumber},
    store::{StoreError, addresses::RegisteredPreparation},
};

/// How many messages are written to the index in one go.
const MESSAGES: usize = 100_000;

/// The messages that are not in the index yet: address and recipient number.
#[derive(Default)]
pub(super) struct IndexWriter {
    waiting: Vec<(AddressKey, u32)>,
}

impl IndexWriter {
    /// Notes the messages of a chunk. The chunk itself must be written before, because a removal
    /// finds the messages by their chunk.
    pub(super) async fn note_chunk(
        &mut self,
        preparation: &Preparation<'_>,
        chunk: u32,
        addresses: &[AddressKey],
    ) -> Result<(), StoreError> {
        if preparation.settings.smtp_test {
            // an SMTP test delivers nothing, so nothing counts
            return Ok(());
        }
        let first = u32::try_from(RecipientNumber::of(chunk, 0, preparation.chunk_size() as u32).0)
            .map_err(|_| StoreError::Damaged("too many chunks".into()))?;
        self.waiting.extend(addresses.iter().copied().zip(first..));
        if self.waiting.len() < MESSAGES { Ok(()) } else { self.flush(preparation).await }
    }

    /// Writes all noted messages to the index.
    pub(super) async fn flush(&mut self, preparation: &Preparation<'_>) -> Result<(), StoreError> {
        let messages = std::mem::take(&mut self.waiting);
        if messages.is_empty() {
            return Ok(());
        }
        let number = preparation_number(preparation).await?;
        preparation.tools.checks.addresses.note_messages(number, messages).await
    }
}

/// The number of the preparation in the index; the same one each time.
pub(super) async fn preparation_number(preparation: &Preparation<'_>) -> Result<u32, StoreError> {
    let registered = RegisteredPreparation {
        delivery: preparation.id().clone(),
        generation: preparation.generation,
        chunk_size: preparation.chunk_size() as u32,
        has_fatigue_rule: preparation.settings.fatigue.is_some(),
        name: preparation.definition().name.clone(),
    };
    preparation.tools.checks.addresses.number_preparation(&registered).await
}
