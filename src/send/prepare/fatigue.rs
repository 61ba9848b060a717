//! Fatigue: who gets too many messages is left out by the preparation, and again when a chunk is sent for the first time.

use std::collections::{BTreeSet, HashMap};

use super::pass::PreparationPass;
use crate::{
    deliveries::Context,
    domain::{
        audience::{AddressKey, FatigueMoment, FatigueRule, FatigueWeight, Recipient, digest_of, message_counts, weight},
        delivery::DeliveryId,
        schedule::Undated,
    },
    mail::to_ascii,
    store::{
        StoreError,
        addresses::{IndexedMessage, PreparationStanding, RegisteredPreparation},
        audience::SliceKind,
    },
};

/// So many messages are written to the index at a time.
const MESSAGES: usize = 100_000;

/// What is known of preparations that were met, for as long as somebody looks; `None` does not count.
pub(super) type KnownPreparations = HashMap<u32, Option<PreparationStanding>>;

/// When a recipient is due, and who it is.
pub(super) type DueAddress = (Result<u32, Undated>, AddressKey);

impl Context {
    /// Which of `asked` have enough messages already, without those of the delivery itself.
    pub(super) async fn tired(
        &self,
        own: &DeliveryId,
        rule: &FatigueRule,
        asked: &[(AddressKey, FatigueMoment<'_>)],
        known: &mut KnownPreparations,
    ) -> Result<Vec<bool>, StoreError> {
        let addresses: Vec<AddressKey> = asked.iter().map(|(address, _)| *address).collect();
        let messages = self.store.messages_to(&addresses).await?;
        let met: BTreeSet<u32> = messages.iter().flatten().map(|message| message.preparation).collect();
        let unknown: Vec<u32> = met.into_iter().filter(|number| !known.contains_key(number)).collect();
        let mut standings = self.store.standings(&unknown).await?;
        known.extend(unknown.into_iter().map(|number| (number, standings.remove(&number))));

        // what became of a message is asked only where there are so many that it matters
        let (mut recipients, mut terms) = (Vec::new(), Vec::new());
        for (i, ((_, moment), messages)) in asked.iter().zip(&messages).enumerate() {
            let candidate = |message: &IndexedMessage| {
                let standing = known.get(&message.preparation)?.as_ref().filter(|s| s.delivery != *own)?;
                let (at, position, wave) = standing.find(message.recipient)?;
                let weight = weight(rule, *moment, &standing.delivery, wave);
                (weight != FatigueWeight::None).then_some(((at, position), (i, weight, standing)))
            };
            let (places, those): (Vec<_>, Vec<_>) = messages.iter().filter_map(candidate).unzip();
            if places.len() >= rule.messages as usize {
                recipients.extend(places);
                terms.extend(those);
            }
        }
        let mut counted = vec![0; asked.len()];
        for ((status, checked), (i, weight, standing)) in self.store.statuses(&recipients).await?.into_iter().zip(terms) {
            counted[i] += u32::from(message_counts(weight, standing.state, status, checked || !standing.ruled));
        }
        Ok(counted.into_iter().map(|n| n >= rule.messages).collect())
    }

    /// Removes the parts of uploads before `upload` and of preparations before `generation`, and their messages from the index.
    pub(crate) async fn remove_older(&self, id: &DeliveryId, upload: u32, generation: u32) -> Result<(), StoreError> {
        let before = self.store.prepared_before(id, generation).await?;
        let mut buckets = BTreeSet::new();
        for (number, chunks) in &before {
            for chunk in 0..*chunks {
                // one that a removal has begun with is gone, and its messages before it
                let recipients: Vec<Recipient> = match self.store.slice(id, SliceKind::Chunks(*number), chunk).await {
                    Err(StoreError::Damaged(_)) => continue,
                    other => other?,
                };
                let keys = recipients.iter().filter_map(|recipient| to_ascii(&recipient.email).ok());
                buckets.extend(keys.map(|address| AddressKey::of(digest_of(&address)).bucket()));
            }
        }
        let generations: Vec<u32> = before.into_iter().map(|(number, _)| number).collect();
        self.store.forget_messages(id, &generations, &buckets).await?;
        self.store.remove_older(id, upload, generation).await
    }
}

impl PreparationPass<'_> {
    /// Notes the messages of a chunk, after the chunk itself: removing them goes by it.
    pub(super) async fn note_messages(&mut self, chunk: u32, addresses: &[AddressKey]) -> Result<(), StoreError> {
        if self.settings.smtp_test {
            // nobody gets anything
            return Ok(());
        }
        let chunk_size = self.context.config.preparation.chunk_size as u32;
        let first = chunk.checked_mul(chunk_size).ok_or_else(|| StoreError::Damaged("too many chunks".into()))?;
        self.messages.extend(addresses.iter().copied().zip(first..));
        if self.messages.len() < MESSAGES { Ok(()) } else { self.write_messages().await }
    }

    /// Writes what was noted to the index.
    pub(super) async fn write_messages(&mut self) -> Result<(), StoreError> {
        let messages = std::mem::take(&mut self.messages);
        if messages.is_empty() {
            return Ok(());
        }
        self.context.store.note_messages(self.number().await?, messages).await
    }

    /// Its number in the index, the same one each time.
    pub(super) async fn number(&self) -> Result<u32, StoreError> {
        let registered = RegisteredPreparation {
            delivery: self.delivery.id.clone(),
            generation: self.generation,
            chunk_size: self.context.config.preparation.chunk_size as u32,
            ruled: self.settings.fatigue.is_some(),
            name: self.delivery.document.definition.name.clone(),
        };
        self.context.store.number_preparation(&registered).await
    }
}
