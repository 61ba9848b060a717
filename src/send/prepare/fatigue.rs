//! Fatigue: who gets too many messages is left out by the preparation, and again when a chunk is sent for the first time.

use super::pass::PreparationPass;
use crate::{
    domain::{audience::AddressKey, ledger::RecipientNumber, schedule::Undated},
    store::{StoreError, addresses::RegisteredPreparation},
};

/// So many messages are written to the index at a time.
const MESSAGES: usize = 100_000;

/// When a recipient is due, and who it is.
pub(super) type DueAddress = (Result<u32, Undated>, AddressKey);

impl PreparationPass<'_> {
    /// Notes the messages of a chunk, after the chunk itself: removing them goes by it.
    pub(super) async fn note_messages(
        &mut self,
        chunk: u32,
        addresses: &[AddressKey],
    ) -> Result<(), StoreError> {
        if self.settings.smtp_test {
            // nobody gets anything
            return Ok(());
        }
        let chunk_size = self.tools.config.preparation.chunk_size as u32;
        let first = u32::try_from(RecipientNumber::of(chunk, 0, chunk_size).0)
            .map_err(|_| StoreError::Damaged("too many chunks".into()))?;
        self.messages.extend(addresses.iter().copied().zip(first..));
        if self.messages.len() < MESSAGES { Ok(()) } else { self.write_messages().await }
    }

    /// Writes what was noted to the index.
    pub(super) async fn write_messages(&mut self) -> Result<(), StoreError> {
        let messages = std::mem::take(&mut self.messages);
        if messages.is_empty() {
            return Ok(());
        }
        self.tools.checks.addresses.note_messages(self.number().await?, messages).await
    }

    /// Its number in the index, the same one each time.
    pub(super) async fn number(&self) -> Result<u32, StoreError> {
        let registered = RegisteredPreparation {
            delivery: self.delivery.id.clone(),
            generation: self.generation,
            chunk_size: self.tools.config.preparation.chunk_size as u32,
            ruled: self.settings.fatigue.is_some(),
            name: self.delivery.document.definition.name.clone(),
        };
        self.tools.checks.addresses.number_preparation(&registered).await
    }
}
