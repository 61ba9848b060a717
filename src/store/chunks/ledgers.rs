//! The handle of the ledgers, and the scripts that write them.

use std::sync::{Arc, atomic::AtomicU32};

use redis::Script;

use crate::store::{Redis, with_prelude};

/// The ledgers of the chunks. Cheap to clone.
#[derive(Clone)]
pub struct LedgerStore {
    pub(super) redis: Redis,
    /// Number of leases that this process has asked for.
    pub(super) leases: Arc<AtomicU32>,
    pub(super) scripts: Arc<LedgerScripts>,
}

/// Each script bears the name of its file.
pub(super) struct LedgerScripts {
    pub(super) take_lease: Script,
    pub(super) renew_lease: Script,
    pub(super) claim_and_record: Script,
    pub(super) give_back: Script,
    pub(super) cancel_pending: Script,
    pub(super) put_in_doubt: Script,
    pub(super) resolve_in_doubt: Script,
    pub(super) exclude_late: Script,
}

impl Default for LedgerScripts {
    fn default() -> Self {
        Self {
            take_lease: with_prelude(include_str!("take_lease.lua")),
            renew_lease: with_prelude(include_str!("renew_lease.lua")),
            claim_and_record: Script::new(concat!(
                include_str!("claim_and_record_fast.lua"),
                include_str!("prelude.lua"),
                include_str!("claim_and_record.lua"),
            )),
            give_back: with_prelude(include_str!("give_back.lua")),
            cancel_pending: with_prelude(include_str!("cancel_pending.lua")),
            put_in_doubt: with_prelude(include_str!("put_in_doubt.lua")),
            resolve_in_doubt: with_prelude(include_str!("resolve_in_doubt.lua")),
            exclude_late: with_prelude(include_str!("exclude_late.lua")),
        }
    }
}

impl LedgerStore {
    /// Makes the handle from a connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis, leases: Arc::default(), scripts: Arc::default() }
    }
}

/// The delay of the policy `resend` as scripts read it: -1 under `hold`.
pub(super) fn seconds_or_never(resend_after_s: Option<u32>) -> i64 {
    resend_after_s.map_or(-1, i64::from)
}
