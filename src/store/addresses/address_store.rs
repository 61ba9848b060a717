//! The handle of all that is known by address.

use std::sync::Arc;

use redis::Script;

use crate::store::Redis;

/// The message index, the registry of preparations, and the denylist. Cheap to clone.
#[derive(Clone)]
pub struct AddressStore {
    pub(super) redis: Redis,
    pub(super) scripts: Arc<AddressScripts>,
}

pub(super) struct AddressScripts {
    pub(super) find_messages: Script,
    pub(super) forget_messages: Script,
}

impl Default for AddressScripts {
    fn default() -> Self {
        Self {
            find_messages: Script::new(include_str!("find_messages.lua")),
            forget_messages: Script::new(include_str!("forget_messages.lua")),
        }
    }
}

impl AddressStore {
    /// Makes the handle from a connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }
}
