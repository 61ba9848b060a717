//! The template language: what a template may hold, and what its evaluation may cost.
//!
//! Templates are strangers' code. Two rules bound their work:
//!
//! - **No value nests or doubles.** A template cannot put a value into a list or a map. Lists come
//!   from the audience, from `range`, from a filter, or are constants. A filter adds at most one
//!   level. So a value is hardly deeper than the audience made it, and no larger than the fuel that
//!   was paid for it.
//! - **All work is paid before it is done.** A comparison or a product costs little, because one of
//!   its sides is a constant or a number. The engine charges `~` for its text, and `in` for the
//!   items that it visits. Filters and tests charge the whole size of their values.
//!
//! Entry points: [`check`] refuses a source that is outside the language; [`environment()`] makes
//! the engine with the filters and tests of the language only; [`is_harmless`] is for deliveries
//! that an earlier version approved.
//!
//! Not here: the amount of fuel is in `limits`. The guide `docs/guide/templates.md` has the
//! language for people.

mod approved;
mod checker;
mod environment;
mod expressions;
mod filter_rules;
mod kinds;
mod meter;
mod scope;
mod statements;
mod test_rules;
mod violation;

pub use approved::is_harmless;
pub use checker::check;
pub use environment::{approved_environment, environment};
pub use filter_rules::filter_names;
pub use test_rules::test_names;
pub use violation::Violation;
