//! Releases due waves, starts confirmed deliveries, and shares the chunk workers fairly.
//!
//! - [`DueWaves`] releases the waves whose time has come and holds overdue ones for a person. It
//!   also releases held waves and withdraws a schedule on request.
//! - [`Starts`] is the job of a confirmed delivery: it makes the ledgers, marks the chunks of
//!   released waves ready, and requests the first jobs.
//! - [`FairQueue`] decides which delivery gets the next chunk job.
//!
//! Not in here: the yes of a person ([`crate::send::confirm`]); the work on a chunk
//! ([`crate::send::chunk`]); jobs that were lost, and waves of deliveries in progress
//! ([`crate::send::recover`]); the rules of schedules ([`crate::domain::schedule`]); the script
//! that releases waves ([`crate::store::schedule`]).

mod due_waves;
mod fair_queue;
mod start;

pub use due_waves::DueWaves;
pub use fair_queue::FairQueue;
pub use start::Starts;
