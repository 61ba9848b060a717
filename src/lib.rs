//! Versand prepares e-mail deliveries, sends them, and accounts for every recipient.
//!
//! This page is the map of the rooms: the folders of `src`, and some single files. The head of the
//! file, or of the folder's `mod.rs`, says what the room owns. `docs/glossary.md` has the words,
//! and `docs/architecture.md` the reasons.
//!
//! # The journey of a delivery
//!
//! [`send`] is the journey, one folder for each step, in this order:
//!
//! 1. [`send::define`]: the definition and the audience upload; copies and recurring deliveries.
//! 2. [`send::prepare`]: checks, exclusions, waves, chunks, and the digest. It sends nothing.
//! 3. [`send::confirm`]: approval and confirmation, by a person or by a job.
//! 4. [`send::release`]: due waves are released, ledgers are made, chunks get jobs in fair order.
//! 5. [`send::chunk`]: take the lease, claim, send, record, give the lease back.
//!
//! Three more folders serve all steps. [`send::limits`] decides how fast a chunk is sent.
//! [`send::recover`] finds and repairs everything that a crash left behind. [`send::operate`] is
//! for people: pause, resume, stop, in-doubt resolution, proofs, retention.
//!
//! After the mail is sent, [`feedback`] records what comes back, and [`report`] reads all logs.
//! [`observe`] sets the gauges and checks that no recipient was lost.
//!
//! # The rooms, from top to bottom
//!
//! A room uses only rooms below it, except within one row.
//!
//! | rooms | purpose |
//! |---|---|
//! | [`cli`], [`demo`] | the command line; one whole delivery, shown to a newcomer |
//! | [`backup`] | backups of the state directory |
//! | [`app`] | the only wiring: gives each service the few handles that it needs |
//! | [`http`], [`worker`], [`scheduler`] | thin entries for requests, jobs and cron; no rules |
//! | [`observe`] | gauges, and the conservation check |
//! | [`send`] | the journey |
//! | [`feedback`] | hits, opt-outs, statistics |
//! | [`report`] | sending log, exclusion log, tracking log, history, preview, archive |
//! | [`deliveries`] | reads a delivery, decides, and writes by compare-and-set |
//! | [`audit`] | the chain of heads, the log of operations |
//! | [`store`], [`queue`] | Redis: data, keys and scripts; the jobs, and the only use of apalis |
//! | [`mail`], [`identity`], [`redis_server`] | template to SMTP; who calls; the embedded Redis |
//! | [`metrics`], [`daemon`], [`logging`] | every metric; name, tasks, end of a process; the log |
//! | [`domain`], [`config`], [`clock`], [`live`] | pure rules; the settings; the wall clock; values that a reload replaces |
//!
//! The order in short: `audit` < `deliveries` < `report` < `feedback` < `send` < `observe`. Nothing
//! is below the last row. A test (`tests/suite/tidy/mod.rs`) checks these rules.
//!
//! # Invariants
//!
//! - A recipient is claimed in its ledger before its SMTP transaction, and recorded after it.
//!   Only a proof starts a transaction without a ledger.
//! - A delivery changes only by a compare-and-set on its revision. The same script writes the audit
//!   entry.
//! - A step writes state first and queues jobs after. A job is a hint: if it is lost or doubled,
//!   only time is lost.
//! - No decision about the holder of a chunk compares wall clocks.
//! - The lines of the daemon's log never hold an e-mail address or content.

pub mod app;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod deliveries;
pub mod demo;
pub mod domain;
pub mod feedback;
pub mod http;
pub mod identity;
pub mod live;
pub mod logging;
pub mod mail;
pub mod metrics;
pub mod observe;
pub mod queue;
pub mod redis_server;
pub mod report;
pub mod scheduler;
pub mod send;
pub mod store;
pub mod worker;
