//! The journey of a delivery, one file a step: edit, upload, prepare, approve, confirm, release, chunk, finish, settle.
//!
//! A step writes state first and enqueues after; it never calls the next step. What a crash between the two leaves behind is
//! found by [`reconcile`].

mod approve;
pub mod archive;
mod aside;
pub mod change;
mod checks;
pub mod chunk;
pub mod claimed;
pub mod confirm;
pub mod confirm_job;
pub mod conservation;
mod copy;
mod dealer;
pub mod edit;
mod exclude;
mod expire;
mod fatigue;
pub mod finish;
mod group;
mod heal;
pub mod history;
mod lane;
pub mod lease;
pub mod logs;
pub mod observe;
mod preparation;
pub mod prepare;
pub mod preview;
pub mod proofs;
pub mod recall;
pub mod reconcile;
pub mod recorder;
pub mod recur;
pub mod release;
pub mod render;
pub mod retention;
pub mod scribe;
pub mod settle;
pub mod statistics;
pub mod throttle;
pub mod track;
pub mod tracking_log;
pub mod turns;
pub mod upload;
pub mod watch;
pub mod waves;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64},
};

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    domain::{audience::LineError, delivery::Invalid, role::Role, state::Illegal, tracking::rules::Rules},
    identity::Keyring,
    mail::{relays::Relays, token::TokenKey},
    metrics::Ratios,
    queue::{JobError, Queue, QueueError, WorkerHealth},
    store::{Store, StoreError},
};

/// Everything a step needs. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub store: Store,
    pub queue: Queue,
    pub relays: Relays,
    pub config: Arc<Config>,
    /// Whether the built-in catcher takes all mail.
    pub has_catcher: bool,
    /// This process, in every lease it takes.
    pub owner: u64,
    /// The processes that had the state directory before this one: their leases need no waiting.
    pub dead_owners: Arc<[u64]>,
    /// Message-IDs and boundaries derive from it.
    pub stamps: render::StampKey,
    /// Makes and checks the tokens in links.
    pub tokens: TokenKey,
    pub templates: render::Cache,
    pub recorder: recorder::Recorder,
    /// What tells humans from machines.
    pub rules: Arc<Rules>,
    /// Held by who computes statistics.
    pub reckoning: Arc<Mutex<()>>,
    /// Deliveries that links led to.
    pub sent_lately: track::Known,
    pub watch: watch::Watch,
    pub throttle: throttle::Throttle,
    pub turns: turns::AllTurns,
    /// Acceptances that are in a ledger or were those of proofs, for comparison with what the relay layer counted.
    pub acceptances: Arc<AtomicU64>,
    pub tracker: TaskTracker,
    pub conservation: conservation::Differences,
    /// Of the most recent deliveries, for `/metrics`.
    pub ratios: Ratios,
    /// Chunks given back lately.
    pub released: recall::Released,
    /// Whether Redis took writes when it was asked last.
    pub redis_writable: Arc<AtomicBool>,
    /// Whether it was said that the chain of audit heads is damaged.
    pub heads_damaged: Arc<AtomicBool>,
    pub keyring: Arc<Keyring>,
    /// Whether the queue's workers live.
    pub health: WorkerHealth,
    /// Cancelled when the daemon is asked to end: no new work, finish what was begun.
    pub shutdown: CancellationToken,
}

/// Why a step was refused, named by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such delivery")]
    NotFound,
    #[error("there is no such recipient")]
    NoRecipient,
    #[error("it does not recur")]
    NoRecurrence,
    #[error("the logs were removed on {0:.0}")]
    Cleaned(Timestamp),
    #[error("the tracking log was removed on {0:.0}; the statistics stay as they were")]
    TrackingCleaned(Timestamp),
    #[error("the role {} is missing", .0.word())]
    MissingRole(Role),
    /// Somebody else has to do it.
    #[error("{0}")]
    NotYours(&'static str),
    #[error("{0}")]
    Illegal(#[from] Illegal),
    #[error("the digest is not that of the prepared delivery: prepare it and look at it again")]
    StaleDigest,
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("{0}")]
    Line(#[from] LineError),
    #[error("the upload broke off: {0}")]
    BrokenUpload(String),
    #[error("{0}")]
    Conflict(&'static str),
    #[error("{0}")]
    Unavailable(#[from] StoreError),
    #[error("{0}")]
    Queue(#[from] QueueError),
}

/// In a job only what may pass is worth another try; a refusal is final and was recorded by the step.
impl From<Refusal> for JobError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable(StoreError::Unavailable(e)) => Self::Retry(e.to_string()),
            Refusal::Queue(QueueError::Unavailable(e)) => Self::Retry(e.to_string()),
            other => Self::Abort(other.to_string()),
        }
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<QueueError> for JobError {
    fn from(error: QueueError) -> Self {
        Refusal::from(error).into()
    }
}

/// Now, in whole seconds of Unix time, as the ledgers keep it.
pub fn unix_now() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(u32::MAX)
}
