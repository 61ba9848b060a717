//! Limits: how much may be sent now, to whom, and over how many connections.
//!
//! All daemons share the limits through Redis. Each daemon keeps its share of them in memory.
//! Only few messages therefore cost a round trip.
//!
//! Entry points:
//! - [`Admission`]: decides which recipients of a chunk may be claimed now;
//! - [`Throttles`]: token buckets, limits of recipient domains and circuit breakers of a daemon;
//! - [`ThrottleWatch`]: takes this daemon's share each second, and reads the open breakers;
//! - [`ConnectionPermits`]: decides which delivery gets the next relay connection;
//! - [`MailOut`]: the handles that every sender of mail needs;
//! - [`AddressChecks`]: decides which addresses have got enough messages.
//!
//! Not here:
//! - the scripts of the token buckets: `crate::store::limits`;
//! - the pool of connections of one relay: `crate::mail::smtp`;
//! - the order in which chunks get jobs: `crate::send::release`.

mod address_checks;
mod admission;
mod chunk_domains;
mod circuit_breakers;
mod connection_permits;
mod domain_limits;
mod error_rate;
mod mail_out;
mod throttle_watch;
mod throttles;
mod token_buckets;

pub use address_checks::{AddressChecks, KnownPreparations};
pub use admission::{Admission, BucketRate};
pub use connection_permits::{ConnectionPermit, ConnectionPermits, RoutePermits};
pub use mail_out::MailOut;
pub use throttle_watch::ThrottleWatch;
pub use throttles::Throttles;
