//! The demo: the main job on an embedded Redis, step by step, for a newcomer.
//!
//! [`run()`] starts a whole daemon with an embedded Redis and the built-in mail catcher. It then
//! creates, uploads, prepares and confirms a delivery over HTTP, as any client would, and prints
//! each step. [`DemoOptions`] are its options on the command line.
//!
//! - `sample_audience` makes recipients, some of them excluded, refused or deferred.
//! - `client` calls the admin API and follows the progress.
//!
//! The demo has no access of its own to the services: all it does goes through the API.
//!
//! Not here: the daemon (`app`), the mail catcher and its rules (`mail::catcher`), and the other
//! commands (`cli`).

mod client;
mod run;
mod sample_audience;

pub use run::{DemoOptions, run};
