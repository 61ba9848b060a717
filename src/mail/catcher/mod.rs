//! The mail catcher: a built-in SMTP server that keeps the messages it gets and delivers nothing.
//!
//! It serves the demo, local trials and the tests, which make it fail on purpose.
//!
//! Entry points:
//!
//! - [`Catcher::serve`] serves a listener, [`Catcher::session`] a single stream.
//! - [`Catcher::messages`] gives the [`CaughtMessage`]s, [`Catcher::counts`] the counters.
//! - [`Catcher::change_rules`] changes the [`CatcherRules`]. A [`CatcherFault`] is one fault: a
//!   [`CatcherAction`] at a [`CatcherStage`].
//!
//! Files: `server` accepts connections, `session` answers the commands of one, `stream` reads and
//! writes its lines. `state` is shared by all connections; `rules` defines the faults.
//!
//! Not here: the client is in [`smtp`](super::smtp); `app` starts the catcher and binds its port.

mod rules;
mod server;
mod session;
mod state;
mod stream;

pub use rules::{CatcherAction, CatcherFault, CatcherRules, CatcherStage};
pub use state::{Catcher, CatcherCounts, CatcherOptions, CaughtMessage};
