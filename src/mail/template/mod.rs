//! Templates: from a delivery's content to the bytes of each recipient's message.
//!
//! Entry points:
//!
//! - [`Template::compile`] checks sender and content, and compiles them once per delivery.
//! - [`Template::render`] makes the message of one recipient; [`Template::proof`] makes it for a
//!   test address; [`Template::mirror`] makes its mirror page.
//! - [`Template::try_message`] is the dry run of the preparation.
//! - [`MessageMaker`] holds the compiled templates of recent deliveries, and makes stamps and
//!   signers.
//! - [`check_language`] refuses a source that is outside the template language.
//! - [`TemplateThreads`] run what a template may make long.
//!
//! The room `language` says what a template may hold. The room `fast_path` renders simple templates
//! without the template engine, with the same result. Files: `fields` for merge fields, `tags` for
//! reading tags in the source, `tracked_links` for rewritten links, `text_alternative` for the text
//! made from HTML, `template_problem` for errors.
//!
//! Not here: headers and encodings are in `mail/compose`, the rewriting itself and tokens in
//! [`links`](super::links). `send/prepare` decides which recipients are checked.

mod compile;
mod dry_run;
mod fast_path;
mod fields;
mod language;
mod limits;
mod message_maker;
mod mirror;
mod render;
mod tags;
mod template_cache;
mod template_pace;
mod template_problem;
mod template_threads;
mod text_alternative;
mod tracked_links;

pub use super::compose::{MessageStamp, ProofMarks};
pub use language::{Violation, check as check_language, filter_names, test_names};
pub use message_maker::MessageMaker;
pub use render::Template;
pub(super) use tags::template_tag;
pub use template_problem::{RenderError, TemplateProblem};
pub use template_threads::TemplateThreads;
