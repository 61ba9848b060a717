//! TODO head

pub mod listener;
pub mod pages;
pub mod visit;

pub use listener::{PUBLIC_ROUTES, PublicListener};
