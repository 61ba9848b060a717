//! The digest of a delivery: the one number that stands for everything a person approves.

use sha2::{Digest, Sha256};

use super::{definition::Definition, settings::Settings};

/// SHA-256 over name, sender, content, schedule, settings and the prepared audience, in lower-case
/// hexadecimal. A confirmation names it.
pub fn digest(definition: &Definition, settings: &Settings, audience_sha256: &[u8]) -> String {
    let approved = serde_json::json!([
        definition.name,
        definition.sender,
        definition.content,
        definition.schedule,
        settings
    ]);
    let digest = Sha256::new()
        .chain_update("versand delivery 1\n")
        .chain_update(approved.to_string())
        .chain_update(b"\n")
        .chain_update(audience_sha256)
        .finalize();
    data_encoding::HEXLOWER.encode(&digest)
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
