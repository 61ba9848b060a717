//! The one integration binary: real servers, the real application, no mocks. `make test` installs what it needs.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods)] // a test says what it could not do by panicking

mod api;
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
