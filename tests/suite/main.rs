//! The one integration binary.

mod queue;
mod queue_redis;
