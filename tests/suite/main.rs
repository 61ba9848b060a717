//! The one integration binary: real servers, the real application, no mocks.
//!
//! `make test` installs what the tests need.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods)] // a test fails by a panic

mod api;
mod attacks;
mod faults;
mod harness;
mod journey;
mod mail;
mod operations;
mod protocol;
mod queue;
mod readme;
mod tidy;
mod timing;
mod tracking;
