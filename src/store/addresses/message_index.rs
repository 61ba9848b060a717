//! The message index: the messages of all prepared deliveries, found by address.
//!
//! An entry names a preparation and a recipient number. It is written and removed together with the
//! chunk. The entry holds no status and no due time: the ledger and the table of waves have them.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::try_join_all;
use redis::AsyncCommands;

use super::{address_store::AddressStore, preparation_registry::candidate_numbers};
use crate::{
    domain::{audience::AddressKey, delivery::DeliveryId},
    store::{StoreError, keys},
};

/// Maximum of buckets that one script call cleans. Other requests wait while the script runs.
const BUCKETS_PER_CALL: usize = 16;

/// A message in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedMessage {
    /// The number of the preparation.
    pub preparation: u32,
    /// The recipient number.
    pub recipient: u32,
}

impl AddressStore {
    /// Notes messages of a preparation: address and recipient number of each.
    ///
    /// Each bucket takes one command, so many messages at once cost less.
    pub async fn note_messages(
        &self,
        preparation: u32,
        mut messages: Vec<(AddressKey, u32)>,
    ) -> Result<(), StoreError> {
        messages.sort_unstable_by_key(|(address, recipient)| (address.bucket(), *recipient));
        let mut pipe = redis::pipe();
        for bucket in messages.chunk_by(|(a, _), (b, _)| a.bucket() == b.bucket()) {
            let entries: Vec<u8> = bucket
                .iter()
                .flat_map(|(address, recipient)| address.entry(preparation, *recipient))
                .collect();
            pipe.append(keys::message_bucket(bucket[0].0.bucket()), entries).ignore();
        }
        self.redis.run(&pipe).await
    }

    /// The messages to each of some addresses, in the order of the addresses.
    pub async fn messages_to(
        &self,
        addresses: &[AddressKey],
    ) -> Result<Vec<Vec<IndexedMessage>>, StoreError> {
        // The keys of one script call must be in one slot.
        let mut slots: HashMap<u16, Vec<usize>> = HashMap::new();
        for (i, address) in addresses.iter().enumerate() {
            slots.entry(keys::message_slot(address.bucket())).or_default().push(i);
        }
        let find = |asked: Vec<usize>| async move {
            let mut script = self.scripts.find_messages.prepare_invoke();
            for i in &asked {
                script
                    .key(keys::message_bucket(addresses[*i].bucket()))
                    .arg(&addresses[*i].rest()[..]);
            }
            let found: Vec<Vec<u8>> = script.invoke_async(&mut self.redis.connection()).await?;
            Ok::<_, StoreError>((asked, found))
        };
        let mut messages = vec![Vec::new(); addresses.len()];
        for (asked, found) in try_join_all(slots.into_values().map(find)).await? {
            for (i, raw) in asked.into_iter().zip(found) {
                let message = |b: &[u8; 8]| IndexedMessage {
                    preparation: u32::from_be_bytes([b[0], b[1], b[2], b[3]]),
                    recipient: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
                };
                messages[i] = raw.as_chunks::<8>().0.iter().map(message).collect();
            }
        }
        Ok(messages)
    }

    /// Removes the messages of some preparations of a delivery from these buckets, and removes the
    /// preparations from the registry.
    pub async fn remove_messages(
        &self,
        id: &DeliveryId,
        generations: &[u32],
        buckets: &BTreeSet<u16>,
    ) -> Result<(), StoreError> {
        let own = self.registered_numbers(id, generations).await?;
        if own.is_empty() {
            return Ok(());
        }
        let buckets: Vec<u16> = buckets.iter().copied().collect();
        for some in buckets
            .chunk_by(|a, b| keys::message_slot(*a) == keys::message_slot(*b))
            .flat_map(|slot| slot.chunks(BUCKETS_PER_CALL))
        {
            let mut script = self.scripts.forget_messages.prepare_invoke();
            for bucket in some {
                script.key(keys::message_bucket(*bucket));
            }
            for number in &own {
                script.arg(&number.to_be_bytes()[..]);
            }
            let _: u64 = script.invoke_async(&mut self.redis.connection()).await?;
        }
        // The registry comes last. After a crash, the next call finds the same numbers again.
        Ok(self.redis.connection().hdel(keys::PREPARATIONS, own).await?)
    }
    /// The preparation numbers of some generations of a delivery.
    async fn registered_numbers(
        &self,
        id: &DeliveryId,
        generations: &[u32],
    ) -> Result<Vec<u32>, StoreError> {
        let mut own = Vec::new();
        for generation in generations {
            let candidates = candidate_numbers(id, *generation);
            let texts: Vec<Option<String>> = redis::cmd("HMGET")
                .arg(keys::PREPARATIONS)
                .arg(&candidates)
                .query_async(&mut self.redis.connection())
                .await?;
            let prefix = format!("{id} {generation} ");
            let is_own =
                |text: &Option<String>| text.as_ref().is_some_and(|text| text.starts_with(&prefix));
            own.extend(
                candidates
                    .iter()
                    .zip(&texts)
                    .filter(|(_, text)| is_own(text))
                    .map(|(number, _)| *number),
            );
        }
        Ok(own)
    }
}
