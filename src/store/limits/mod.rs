//! Limits that all daemons on one Redis share.
//!
//! The room owns four things. Token buckets hold a rate over all daemons. A sliding window caps the
//! proofs of a principal. The list of present daemons tells each daemon its share. The lists of
//! open circuit breakers pause a recipient domain or a delivery everywhere.
//!
//! Entry point: [`LimitStore`]. [`DaemonPresence`] holds the rank of a daemon among all present
//! daemons.
//!
//! Token buckets and the list of daemons use the clock of Redis, so the clocks of the daemons do
//! not matter. Circuit breakers use the clocks of the daemons.
//!
//! Not here: when a breaker opens and which recipients must wait is decided in `send::limits`.

mod limit_store;

pub use limit_store::{DaemonPresence, LimitStore};
