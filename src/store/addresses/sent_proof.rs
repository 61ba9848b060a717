//! Proofs that were sent: which recipient's message went to which test address.

use redis::AsyncCommands;
use sha2::{Digest, Sha256};

use super::address_store::AddressStore;
use crate::{
    domain::audience::AddressKey,
    store::{StoreError, damaged, keys, tracking::PreparationRef},
};

/// The largest proof number.
const LARGEST: u32 = (1 << 30) - 1;

/// A proof, as the tokens of its links name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentProof {
    /// The recipient whose message was sent.
    pub recipient: u32,
    /// The test address that got it.
    pub address: AddressKey,
}

impl SentProof {
    fn bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.recipient.to_be_bytes());
        bytes[4..].copy_from_slice(&self.address.bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (recipient, address) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            recipient: u32::from_be_bytes(*recipient),
            address: AddressKey::from_bytes(address.try_into().ok()?),
        })
    }

    /// The numbers that a proof may have, derived from the proof and its preparation. The proof
    /// gets the first one that no other proof has.
    fn candidate_numbers(self, preparation: u32) -> [u32; 8] {
        let digest = Sha256::new()
            .chain_update(preparation.to_be_bytes())
            .chain_update(self.bytes())
            .finalize();
        std::array::from_fn(|i| {
            let at = 4 * i;
            LARGEST
                & u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]])
        })
    }
}

impl AddressStore {
    /// Notes a proof, and returns its number. The note lasts for `seconds`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if other proofs have all its candidate numbers.
    pub async fn number_proof(
        &self,
        (preparation, of): (u32, &PreparationRef),
        proof: SentProof,
        seconds: i64,
    ) -> Result<u32, StoreError> {
        let (key, mut conn) = (keys::opt_outs(preparation), self.redis.connection());
        for number in proof.candidate_numbers(preparation) {
            let field = format!("proof.{number}");
            let mut pipe = redis::pipe();
            pipe.hset(&key, "of", of.words()).ignore();
            pipe.hset_nx(&key, &field, &proof.bytes()[..]).ignore();
            pipe.expire(&key, seconds).ignore();
            pipe.hget(&key, &field);
            let (stored,): (Vec<u8>,) = pipe.query_async(&mut conn).await?;
            if stored == proof.bytes() {
                return Ok(number);
            }
        }
        Err(damaged("other proofs have all candidate numbers of this one"))
    }

    /// The proof with this number of a preparation.
    pub async fn sent_proof(
        &self,
        preparation: u32,
        number: u32,
    ) -> Result<Option<SentProof>, StoreError> {
        let stored: Option<Vec<u8>> = self
            .redis
            .connection()
            .hget(keys::opt_outs(preparation), format!("proof.{number}"))
            .await?;
        Ok(stored.and_then(|bytes| SentProof::parse(&bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_read_as_it_is_written() {
        let proof = SentProof { recipient: 70_000, address: AddressKey::from_bytes([7; 8]) };
        assert_eq!(SentProof::parse(&proof.bytes()), Some(proof));
        assert_eq!(SentProof::parse(&proof.bytes()[..11]), None);
        let numbers = proof.candidate_numbers(3);
        assert!(numbers.iter().all(|number| *number <= LARGEST));
        assert_ne!(numbers, proof.candidate_numbers(4));
    }
}
