//! All handles of the store, made once from one connection.

use super::{
    addresses::AddressStore,
    audience::AudienceStore,
    audit::AuditStore,
    chunks::{ChunkLists, LedgerStore},
    connection::Redis,
    delivery_store::DeliveryStore,
    hold::HoldStore,
    limits::LimitStore,
    schedule::ScheduleStore,
    tracking::TrackingStore,
};
use crate::domain::seal::{InstallationKey, SealKey};

/// One handle per subject. `app`, the admin API and the check of a backup have them all. Each
/// service gets the few it needs. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    pub redis: Redis,
    pub deliveries: DeliveryStore,
    pub audits: AuditStore,
    pub audiences: AudienceStore,
    pub schedules: ScheduleStore,
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub addresses: AddressStore,
    pub tracking: TrackingStore,
    pub limits: LimitStore,
    pub holds: HoldStore,
}

impl Stores {
    /// Makes all handles. The key of the installation seals what must not be altered.
    pub fn new(redis: Redis, key: &InstallationKey) -> Self {
        let seals = SealKey::new(key);
        let chunks = ChunkLists::new(redis.clone());
        Self {
            deliveries: DeliveryStore::new(redis.clone(), seals.clone()),
            audits: AuditStore::new(redis.clone(), seals.clone()),
            audiences: AudienceStore::new(redis.clone(), seals),
            schedules: ScheduleStore::new(redis.clone(), chunks.clone()),
            ledgers: LedgerStore::new(redis.clone()),
            addresses: AddressStore::new(redis.clone()),
            tracking: TrackingStore::new(redis.clone()),
            limits: LimitStore::new(redis.clone()),
            holds: HoldStore::new(redis.clone()),
            chunks,
            redis,
        }
    }
}
