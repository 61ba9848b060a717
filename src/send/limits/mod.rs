//! TODO head

pub mod address_checks;
pub mod admission;
pub mod connection_permits;
pub mod error_rate;
pub mod mail_out;
pub mod throttle_watch;
pub mod throttles;

pub use address_checks::{AddressChecks, KnownPreparations};
pub use admission::{Admission, BucketRate};
pub use connection_permits::{ConnectionPermit, ConnectionPermits, RoutePermits};
pub use mail_out::MailOut;
pub use throttle_watch::ThrottleWatch;
pub use throttles::Throttles;
