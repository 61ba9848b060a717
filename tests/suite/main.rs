//! The one integration binary: real servers, the real application, no mocks. `make test` installs what it needs.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods)] // a test says what it could not do by panicking

mod alerts;
mod api_access;
mod api_audit;
mod api_confirm;
mod api_control;
mod api_input;
mod api_logs;
mod api_people;
mod api_preparation;
mod api_settings;
mod api_upload;
mod aside;
mod confirm_queue;
mod conservation;
mod crash;
mod fire;
mod foreign;
mod harness;
mod healing;
mod jobs;
mod journey;
mod mail;
mod outage;
mod parts;
mod protocol;
mod queue;
mod queue_embedded;
mod queue_redis;
mod queue_traps;
mod readme;
mod recovery;
mod room;
mod shutdown;
mod tidy;
mod unit;
