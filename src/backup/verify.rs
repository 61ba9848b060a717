//! Verifies a backup: its files, and that its store can be read from end to end.

use std::{collections::BTreeSet, path::Path};

use super::{backup_error::BackupError, manifest::Manifest, restore::restore};
use crate::{
    domain::{
        delivery::{AuditCheck, CheckedEntry, Delivery, OPERATIONS},
        ledger::Counts,
        seal::InstallationKey,
    },
    redis_server::{EmbeddedRedis, StateDir},
    store::{Redis, StoreError, Stores},
};

/// Audit entries, or ids of deliveries, that are read in one round trip.
const AT_A_TIME: usize = 500;

/// The content of a verified backup.
#[derive(Debug)]
pub struct VerifiedBackup {
    pub manifest: Manifest,
    pub deliveries: u64,
    /// Entries of all audit chains, and of the chain of heads.
    pub entries: u64,
    /// Recipients in ledgers.
    pub recipients: u64,
    /// The faults, one line each. A good backup has none.
    pub faults: Vec<String>,
}

/// Checks the hashes of a backup, then reads a copy of it with a private redis-server.
///
/// It checks the form of the store and every audit chain, and compares every ledger with the live
/// counters.
///
/// # Errors
/// If a file differs from the manifest, if the copy cannot be made, or if the store cannot be read
/// at all.
pub async fn verify(backup: &Path, program: &str) -> Result<VerifiedBackup, BackupError> {
    let folder = tempfile::Builder::new()
        .prefix("versand-verify-")
        .tempdir()
        .map_err(|source| BackupError::File { path: std::env::temp_dir(), source })?;
    let path = folder.path().join("state");
    let manifest = restore(backup, &path)?;
    let state = StateDir::lock(&path)?;
    let embedded = EmbeddedRedis::start(&state, program).await?;
    // the key may be in a file of its own (auth.installation_key_file): then seals are not checked
    let key = state.secret_if_made("installation")?.map(InstallationKey::new);
    let read = read(&embedded.url(), manifest, key).await;
    embedded.stop().await;
    read
}

async fn read(
    url: &str,
    manifest: Manifest,
    key: Option<InstallationKey>,
) -> Result<VerifiedBackup, BackupError> {
    let has_key = key.is_some();
    let key = key.unwrap_or_else(|| InstallationKey::new([0; 32]));
    let stores = Stores::new(Redis::connect_to(url).await?, &key);
    stores.holds.check_format().await?;
    let mut verified =
        VerifiedBackup { manifest, deliveries: 0, entries: 0, recipients: 0, faults: Vec::new() };
    let heads = pages(async |from| stores.audits.heads(from, AT_A_TIME).await).await?;
    let (check, faults) = AuditCheck::new(&heads, &[], has_key);
    verified.entries += heads.len() as u64;
    verified.faults.extend(faults.iter().map(|fault| format!("the chain of heads: {fault}")));
    let mut names: BTreeSet<String> = check.chains().map(str::to_owned).collect();
    names.insert(OPERATIONS.to_owned());
    // the chain of heads may lack a delivery
    for offset in (0..).step_by(AT_A_TIME) {
        let ids = stores.deliveries.delivery_ids(offset, AT_A_TIME).await?;
        names.extend(ids.iter().map(ToString::to_string));
        if ids.len() < AT_A_TIME {
            break;
        }
    }
    for name in &names {
        let chain = pages(async |from| match name.as_str() {
            OPERATIONS => stores.audits.operations(from, AT_A_TIME).await,
            id => {
                let id =
                    id.parse().map_err(|_| StoreError::Damaged(format!("{id}: no delivery")))?;
                stores.audits.delivery(&id, from, AT_A_TIME).await
            }
        });
        let chain = chain.await?;
        verified.entries += chain.len() as u64;
        let fault = check.fault(name, &chain);
        verified.faults.extend(fault.map(|fault| format!("audit chain {name}: {fault}")));
    }
    for offset in (0..).step_by(AT_A_TIME) {
        let ids = stores.deliveries.delivery_ids(offset, AT_A_TIME).await?;
        for id in &ids {
            let found = match has_key {
                true => stores.deliveries.delivery(id).await,
                false => stores.deliveries.delivery_unsealed(id).await,
            };
            match found {
                Ok(Some(delivery)) => verified.note_delivery(&stores, &delivery).await?,
                Ok(None) => {}
                Err(StoreError::Damaged(why) | StoreError::Altered(why)) => {
                    verified.faults.push(format!("delivery {id}: {why}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if ids.len() < AT_A_TIME {
            return Ok(verified);
        }
    }
    Ok(verified)
}

/// All entries of a chain.
async fn pages(
    page: impl AsyncFn(usize) -> Result<Vec<CheckedEntry>, StoreError>,
) -> Result<Vec<CheckedEntry>, StoreError> {
    let mut all = Vec::new();
    loop {
        let entries = page(all.len()).await?;
        let is_last = entries.len() < AT_A_TIME;
        all.extend(entries);
        if is_last {
            return Ok(all);
        }
    }
}

impl VerifiedBackup {
    /// Compares the ledgers of a delivery with its plan and with the live counters.
    async fn note_delivery(
        &mut self,
        stores: &Stores,
        delivery: &Delivery,
    ) -> Result<(), StoreError> {
        self.deliveries += 1;
        let document = &delivery.document;
        let Some(plan) = document.plan.as_ref().filter(|_| document.has_started()) else {
            return Ok(());
        };
        if document.cleaned.is_some() {
            return Ok(());
        }
        let ledgers = match stores.ledgers.ledgers(&delivery.id, 0..plan.chunks).await {
            Ok(ledgers) => ledgers,
            Err(StoreError::Damaged(why)) => {
                self.faults.push(format!("delivery {}: {why}", delivery.id));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut counted = Counts::default();
        ledgers.iter().flatten().for_each(|ledger| counted.add(ledger));
        self.recipients += counted.total();
        let live = stores.ledgers.counts(&delivery.id).await?;
        let difference = counted.largest_difference(&live);
        if counted.total() != plan.to_deliver || difference > 0 {
            self.faults.push(format!(
                "delivery {}: its ledgers have {} of {} recipients, and its counters differ by \
                 {difference}",
                delivery.id,
                counted.total(),
                plan.to_deliver
            ));
        }
        Ok(())
    }
}
