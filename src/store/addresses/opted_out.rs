//! The denylist: digests of the addresses that opted out, in sixteen sets.

use std::collections::BTreeMap;

use redis::AsyncCommands;

use super::address_store::AddressStore;
use crate::{
    domain::audience::AddressKey,
    store::{StoreError, keys},
};

fn set_of(address: AddressKey) -> String {
    keys::denylist(address.bytes()[0] >> 4)
}

impl AddressStore {
    /// Adds an address to the denylist. Returns false if it was there.
    pub async fn deny(&self, address: AddressKey) -> Result<bool, StoreError> {
        Ok(self.redis.connection().sadd(set_of(address), &address.bytes()[..]).await?)
    }

    /// Removes an address from the denylist. Returns false if it was not there.
    pub async fn allow(&self, address: AddressKey) -> Result<bool, StoreError> {
        Ok(self.redis.connection().srem(set_of(address), &address.bytes()[..]).await?)
    }

    /// Whether the denylist is empty.
    pub async fn denies_nobody(&self) -> Result<bool, StoreError> {
        let mut pipe = redis::pipe();
        for set in 0..16 {
            pipe.exists(keys::denylist(set));
        }
        let exist: Vec<bool> = pipe.query_async(&mut self.redis.connection()).await?;
        Ok(!exist.contains(&true))
    }

    /// Whether each of some addresses is on the denylist, in the order of the addresses.
    pub async fn denied(&self, addresses: &[AddressKey]) -> Result<Vec<bool>, StoreError> {
        let mut sets: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, address) in addresses.iter().enumerate() {
            sets.entry(set_of(*address)).or_default().push(i);
        }
        if sets.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for (set, places) in &sets {
            pipe.cmd("SMISMEMBER").arg(set);
            for i in places {
                pipe.arg(&addresses[*i].bytes()[..]);
            }
        }
        let answers: Vec<Vec<bool>> = pipe.query_async(&mut self.redis.connection()).await?;
        let mut denied = vec![false; addresses.len()];
        for (places, answer) in sets.values().zip(answers) {
            for (i, is_denied) in places.iter().zip(answer) {
                denied[*i] = is_denied;
            }
        }
        Ok(denied)
    }
}
