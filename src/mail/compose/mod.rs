//! TODO head

pub mod body;
pub mod draft;
pub mod mime;
pub mod quoted_printable;

pub use body::{Body, LiteralRun, holds_mark, mark};
pub use draft::Draft;
