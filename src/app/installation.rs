//! The key of the installation at the start of a daemon, and the secrets that it seals.
//!
//! The first daemon of an installation makes the key in its state directory, and seals what a
//! version without seals has written. All other daemons need a copy of that key.
//!
//! With `auth.installation_key_file` no daemon makes a key. A daemon then seals older data only if
//! its state directory has the file `sealing`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::{
    audit::AuditHeads,
    config::{self, ConfigError},
    domain::seal::InstallationKey,
    redis_server::StateDir,
    store::{Redis, SealedSecret, StoreError, StoredSecret, Stores},
};

/// The name of the secret in the state directory: the file is `installation.secret`.
const NAME: &str = "installation";
/// The file that exists while the first seal is not complete.
const SEALING: &str = "sealing";
/// Fewest characters of a key in a credential file.
const SHORTEST_KEY: usize = 32;
/// How often, and how many times, the first seal looks whether other daemons have ended.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: u32 = 40;
/// Deliveries whose ids are read in one round trip.
const AT_A_TIME: usize = 500;

/// The daemon has another key than the daemons that use this Redis, or none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: this is not the key of the installation that uses this Redis. Copy {NAME}.secret from the \
     state directory of a daemon that works, or set auth.installation_key_file to the same secret \
     as there",
    .0.display()
)]
pub struct ForeignKey(PathBuf);

/// The key of the installation, as this daemon found or made it.
pub(super) struct Installation {
    pub key: InstallationKey,
    /// The first seal is not complete: its file is in the state directory.
    is_new: bool,
}

impl Installation {
    /// Reads the key, or makes it if Redis knows of none.
    ///
    /// # Errors
    /// [`ForeignKey`] if Redis belongs to another key; if a file or Redis cannot be used; if other
    /// daemons do not end before the first seal.
    pub(super) async fn open(file: &Path, state: &StateDir, redis: &Redis) -> anyhow::Result<Self> {
        let known = redis.installation_check().await?;
        let own = state.path().join(format!("{NAME}.secret"));
        let (key, place) = match file.as_os_str().is_empty() {
            false => (Some(key_in(file)?), file.to_owned()),
            true => (state.secret_if_made(NAME)?.map(InstallationKey::new), own.clone()),
        };
        let key = match key {
            Some(key) => key,
            None if known.is_some() => return Err(ForeignKey(place).into()),
            None => {
                // the mark comes before the key: a start after a crash in between seals the rest
                state.write_private(SEALING, b"")?;
                InstallationKey::new(state.secret(NAME)?)
            }
        };
        let check = HEXLOWER.encode(&key.derive("check")[..16]);
        if known.is_some_and(|known| known != check) {
            return Err(ForeignKey(place).into());
        }
        let is_new = state.has(SEALING);
        if is_new {
            await_end_of_others(redis).await?;
        }
        // two first daemons may have made a key at the same time
        if redis.note_installation(&check).await? != check {
            return Err(ForeignKey(place).into());
        }
        Ok(Self { key, is_new })
    }

    /// Seals what a version without seals has written, if the first seal is not complete. The seals
    /// of the audit log begin after that, or with a new store.
    ///
    /// # Errors
    /// If Redis does not answer, a delivery is damaged, or the file `sealing` cannot be removed.
    pub(super) async fn seal_first(
        &self,
        stores: &Stores,
        heads: &AuditHeads,
        state: &StateDir,
    ) -> anyhow::Result<()> {
        if !self.is_new {
            if heads.is_new().await? {
                heads.begin_seals().await?;
            }
            return Ok(());
        }
        let sealed = stores.seal_all().await.context("the first seal")?;
        note_all_heads(stores, heads).await.context("the first seal")?;
        heads.begin_seals().await?;
        stores.redis.await_durability().await?;
        state.remove(SEALING)?;
        if sealed.deliveries > 0 {
            tracing::warn!(
                deliveries = sealed.deliveries,
                slices = sealed.slices,
                "all deliveries are sealed now: from now on an unsealed one counts as altered"
            );
        }
        Ok(())
    }

    /// A secret that all daemons share. Redis holds it in a sealed form.
    ///
    /// # Errors
    /// If the sealed form does not open, a file cannot be used, or Redis does not answer.
    pub(super) async fn shared_secret(
        &self,
        redis: &Redis,
        state: &StateDir,
        name: &str,
    ) -> anyhow::Result<[u8; 32]> {
        let sealer = SealedSecret { key: &self.key, name };
        let own = match state.secret_if_made(name)? {
            Some(secret) => secret,
            None => self.key.derive(name),
        };
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce)?;
        let sealed = match redis.stored_secret(name).await? {
            StoredSecret::Sealed(sealed) => sealed,
            StoredSecret::Missing => {
                redis.store_secret(name, sealer.seal(&own, nonce), false).await?
            }
            // an earlier version stored it, and links and Message-IDs must stay the same
            StoredSecret::Plain(plain) if self.is_new => {
                redis.store_secret(name, sealer.seal(&plain, nonce), true).await?
            }
            StoredSecret::Plain(_) => Vec::new(),
        };
        let secret = sealer.open(&sealed).with_context(|| {
            format!(
                "versand:secret:{name}: was altered in Redis, or a version without seals wrote it \
                 (docs/operations.md, Upgrades). If it was altered, remove this key: the daemon \
                 then stores the secret again that its state directory has"
            )
        })?;
        if secret != own {
            state.write_private(&format!("{name}.secret"), &secret)?;
        }
        Ok(secret)
    }
}

/// Notes the audit heads of all deliveries: the first seal covers what the chain of heads names.
async fn note_all_heads(stores: &Stores, heads: &AuditHeads) -> Result<(), StoreError> {
    for offset in (0..).step_by(AT_A_TIME) {
        let ids = stores.deliveries.delivery_ids(offset, AT_A_TIME).await?;
        for id in &ids {
            if let Some(delivery) = stores.deliveries.delivery(id).await? {
                heads.note(id, &delivery.document.audit).await?;
            }
        }
        if ids.len() < AT_A_TIME {
            break;
        }
    }
    Ok(())
}

/// The key in a credential file: derived from its first line.
fn key_in(file: &Path) -> anyhow::Result<InstallationKey> {
    let refuse = |reason| ConfigError { setting: "auth.installation_key_file".to_owned(), reason };
    let text = config::secret(file).map_err(refuse)?;
    if text.len() < SHORTEST_KEY {
        let reason = format!("its first line must have at least {SHORTEST_KEY} characters");
        return Err(refuse(reason).into());
    }
    Ok(InstallationKey::new(Sha256::digest(text).into()))
}

/// Waits until no other daemon is present. A version without seals must not change a delivery any
/// more once it is sealed.
async fn await_end_of_others(redis: &Redis) -> anyhow::Result<()> {
    for look in 0..LOOKS {
        if redis.daemons_present().await? == 0 {
            return Ok(());
        }
        if look == 0 {
            tracing::warn!("waits for the end of all daemons of the earlier version");
        }
        tokio::time::sleep(LOOK).await;
    }
    anyhow::bail!(
        "other daemons still use this Redis: end all daemons of the earlier version before the \
         first start of this one, because it seals all deliveries"
    )
}
