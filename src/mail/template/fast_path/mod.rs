//! The fast path: renders simple templates without the template engine.
//!
//! The result is the same, byte for byte, as that of the engine. A template that is not simple goes
//! through the engine with marks in place of its literal runs, if it has any. In other cases, and
//! for a value that is not simple, the fast path returns `None`, and the caller asks the engine.
//!
//! Entry points:
//!
//! - [`FastPathPart`] renders one part (subject, HTML or text) of a message.
//! - [`CompiledMerge`] renders a template of literal text, merge fields, conditions and loops;
//!   [`MergeLimits`] bound it.
//!
//! Files: `literal_runs` takes lines without tags out of a template, so that they are encoded only
//! once. `parser` reads the rest into merge steps, and `merge` carries these out.
//!
//! Not here: `template/render.rs` calls the engine; `mail/compose/text_with_tokens.rs` encodes
//! literal runs.

mod literal_runs;
mod merge;
mod parser;
mod part;

pub use merge::{CompiledMerge, MergeLimits};
pub use part::FastPathPart;
