//! TODO head

pub mod admission;
pub mod connection_permits;
pub mod error_rate;
pub mod throttles;

pub use admission::{Admission, BucketRate};
pub use connection_permits::{ConnectionPermit, ConnectionPermits, RoutePermits};
pub use throttles::Throttles;
