//! TODO head

pub mod rules;
pub mod server;
pub mod session;
pub mod stream;

pub use rules::{CatcherAct, CatcherAction, CatcherRules, CatcherStage};
pub use server::{Catcher, CatcherCounts, CatcherOptions, CaughtMessage};
