//! All handles of the store, made once from one connection.

use super::{
    addresses::AddressStore,
    audience::AudienceStore,
    chunks::{ChunkLists, LedgerStore},
    connection::Redis,
    delivery_store::DeliveryStore,
    hold::HoldStore,
    limits::LimitStore,
    schedule::ScheduleStore,
    tracking::TrackingStore,
};

/// One handle per subject. Only `app` has them all; each service gets the few it needs. Cheap to
/// clone.
#[derive(Clone)]
pub struct Stores {
    pub redis: Redis,
    pub deliveries: DeliveryStore,
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
    /// Makes all handles.
    pub fn new(redis: Redis) -> Self {
        let chunks = ChunkLists::new(redis.clone());
        Self {
            deliveries: DeliveryStore::new(redis.clone()),
            audiences: AudienceStore::new(redis.clone()),
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
