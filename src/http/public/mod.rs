//! The public listener, which recipients and their mail programs reach.
//!
//! - [`PublicListener`] answers the five routes of [`PUBLIC_ROUTES`]. A hit that counts is recorded
//!   before it gets its pixel, redirect or page.
//! - `request_visit` reads the visitor from a request: address, user agent, signs of a machine.
//! - `pages` holds the few pages and their headers.
//!
//! A forged or expired link gets a harmless answer.
//!
//! Not here: tokens and link targets (`feedback` and `mail::links`), the classes of hits
//! (`domain::tracking`), and the admin API, which listens at another address.

mod listener;
mod pages;
mod request_visit;

pub use listener::{PUBLIC_ROUTES, PublicListener};
