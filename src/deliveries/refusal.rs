//! The journey of a delivery, one file a step: edit, upload, prepare, approve, confirm, release, chunk, finish, settle.
//!
//! A step writes state first and enqueues after; it never calls the next step. What a crash between the two leaves behind is
//! found by [`reconcile`].

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64},
};

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    domain::{
        Role,
        audience::LineError,
        delivery::{IllegalTransition, Invalid},
        tracking::MachineRules,
    },
    identity::Keyring,
    mail::{links::TokenKey, smtp::Relays},
    metrics::DeliveryRatios,
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
    pub stamps: crate::mail::StampKey,
    /// Makes and checks the tokens in links.
    pub tokens: TokenKey,
    pub templates: crate::mail::TemplateCache,
    pub recorder: crate::feedback::HitRecorder,
    /// What tells humans from machines.
    pub rules: Arc<MachineRules>,
    /// Held by who computes statistics.
    pub reckoning: Arc<Mutex<()>>,
    /// Deliveries that links led to.
    pub sent_lately: crate::feedback::KnownDeliveries,
    pub watch: crate::send::recover::Liveness,
    pub throttle: crate::send::limits::Throttles,
    pub turns: crate::send::limits::ConnectionPermits,
    /// Acceptances that are in a ledger or were those of proofs, for comparison with what the relay layer counted.
    pub acceptances: Arc<AtomicU64>,
    pub tracker: TaskTracker,
    pub conservation: crate::observe::ConservationDifferences,
    /// Of the most recent deliveries, for `/metrics`.
    pub ratios: DeliveryRatios,
    /// Chunks given back lately.
    pub released: crate::send::chunk::GivenBackChunks,
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
    Illegal(#[from] IllegalTransition),
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
