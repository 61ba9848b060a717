//! TODO head

pub mod compile;
pub mod dry_run;
pub mod fast_path;
pub mod fields;
pub mod render;
pub mod tags;
pub mod text_alternative;
pub mod tracked_links;

pub use fields::{FieldValues, FoundField, context, lookup, value_of};
pub use render::{MessageStamp, ProofMarks, RenderError, Template, TemplateProblem};
pub use tags::template_tag;
