//! The mail catcher: a built-in SMTP server that keeps the messages it gets and delivers nothing.
//!
//! It serves the demo, local trials and the tests, which make it fail on purpose.
//!
//! Entry points:
//!
//! - [`Catcher::serve`] serves a listener, [`Catcher::session`] a single stream.
//! - [`Catcher::messages`] gives the [`CaughtMessage`]s, [`Catcher::counts`] the counters.
//! - [`Catcher::change_rules`] changes the [`CatcherRules`]. A [`CatcherFault`] is one fault: at a
//!   [`CatcherStage`], a [`CatcherAction`].
//!
//! Files: `server` for what all connections share, `session` for the commands of one connection,
//! `stream` for its lines and replies, `rules` for faults.
//!
//! Not here: the client is in [`smtp`](super::smtp); `app` starts the catcher and binds its port.

mod rules;
mod server;
mod session;
mod stream;

pub use rules::{CatcherAction, CatcherFault, CatcherRules, CatcherStage};
pub use server::{Catcher, CatcherCounts, CatcherOptions, CaughtMessage};
