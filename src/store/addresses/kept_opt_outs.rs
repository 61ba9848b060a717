//! The addresses of messages whose logs were removed, for the opt-out links in them.
//!
//! Only the first eight bytes of each address's digest are kept, as in the denylist.

use redis::AsyncCommands;

use super::address_store::AddressStore;
use crate::{
    domain::audience::AddressKey,
    store::{StoreError, keys, tracking::PreparationRef},
};

/// Bytes of one address.
const WIDTH: usize = 8;

impl AddressStore {
    /// Keeps the addresses of a chunk, in the order of its recipients, for `seconds`. `None` stands
    /// for a recipient without a valid address.
    pub async fn keep_addresses(
        &self,
        (preparation, of): (u32, &PreparationRef),
        chunk: u32,
        addresses: &[Option<AddressKey>],
        seconds: i64,
    ) -> Result<(), StoreError> {
        let bytes: Vec<u8> = addresses
            .iter()
            .flat_map(|address| address.map_or([0; WIDTH], AddressKey::bytes))
            .collect();
        let key = keys::opt_outs(preparation);
        let mut pipe = redis::pipe();
        pipe.hset(&key, "of", of.words()).ignore();
        pipe.hset(&key, format!("chunk.{chunk}"), bytes).ignore();
        pipe.expire(&key, seconds).ignore();
        Ok(pipe.query_async(&mut self.redis.connection()).await?)
    }

    /// The preparation behind a number, if something of it is kept.
    pub async fn kept_preparation(
        &self,
        preparation: u32,
    ) -> Result<Option<PreparationRef>, StoreError> {
        let of: Option<String> =
            self.redis.connection().hget(keys::opt_outs(preparation), "of").await?;
        of.map(|words| PreparationRef::parse(&words)).transpose()
    }

    /// The kept address of a recipient.
    pub async fn kept_address(
        &self,
        preparation: u32,
        (chunk, position): (u32, u16),
    ) -> Result<Option<AddressKey>, StoreError> {
        let field = format!("chunk.{chunk}");
        let bytes: Option<Vec<u8>> =
            self.redis.connection().hget(keys::opt_outs(preparation), field).await?;
        let at = usize::from(position) * WIDTH;
        let address: Option<[u8; WIDTH]> =
            bytes.and_then(|bytes| bytes.get(at..at + WIDTH)?.try_into().ok());
        Ok(address.filter(|bytes| *bytes != [0; WIDTH]).map(AddressKey::from_bytes))
    }
}
