//! The denylist: who opted out, by the digest of the address, in sixteen sets.

use std::collections::BTreeMap;

use redis::AsyncCommands;

use super::message_index::AddressStore;
use crate::{
    domain::audience::AddressKey,
    store::{StoreError, keys},
};

fn set_of(address: AddressKey) -> String {
    keys::denylist(address.bytes()[0] >> 4)
}

impl AddressStore {
    /// Puts an address on the list; false if it was there.
    pub async fn deny(&self, address: AddressKey) -> Result<bool, StoreError> {
        Ok(self.redis.connection().sadd(set_of(address), &address.bytes()[..]).await?)
    }

    /// Takes an address off the list; false if it was not there.
    pub async fn allow(&self, address: AddressKey) -> Result<bool, StoreError> {
        Ok(self.redis.connection().srem(set_of(address), &address.bytes()[..]).await?)
    }

    /// Whether nobody is on the list.
    pub async fn denies_nobody(&self) -> Result<bool, StoreError> {
        let mut pipe = redis::pipe();
        for set in 0..16 {
            pipe.exists(keys::denylist(set));
        }
        let there: Vec<bool> = pipe.query_async(&mut self.redis.connection()).await?;
        Ok(!there.contains(&true))
    }

    /// Which of some addresses are on the list, in their order.
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
