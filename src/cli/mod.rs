//! The command line. Each command but `serve`, `demo` and `check-config` has a file here.
//!
//! The commands are `serve`, `demo`, `check-config`, `token`, `audit verify`, `jobs`, `archive`,
//! `relabel`, `backup`, `restore` and `verify`.
//!
//! - [`Arguments`] is what the user typed, [`run`] runs it and returns the exit code.
//! - `serve`, `demo` and `check-config` work in this process. `token` needs no daemon.
//! - `backup`, `restore` and `verify` work on files; `backup` asks the embedded Redis to put off
//!   rewrites of its append-only file.
//! - All other commands talk to a running daemon over its admin API (`client`). They work from any
//!   machine that reaches the admin listener, with a token of the role `administration`.
//!
//! A file holds the options of its command and a `run` function. `backup` has three commands, and a
//! function for each. Commands write their results to stdout. Errors go to stderr as one line,
//! which `main` writes.
//!
//! Not here: how the daemon is put together (`app`), the steps of the demo (`demo`), the log
//! (`logging`), and every rule about deliveries.

mod archive;
mod arguments;
mod audit;
mod backup;
mod client;
mod jobs;
mod relabel;
mod token;

pub use arguments::{Arguments, one_line, run};
