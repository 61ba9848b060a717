//! Links: tracked links in a template, and the signed tokens that a recipient's links carry.
//!
//! Entry points:
//!
//! - `rewrite` replaces the links of an HTML template by addresses of the public listener. It
//!   adds the open pixel and the link to the mirror page, too.
//! - [`TokenKey::signer`] gives the [`TokenSigner`] of one message; [`TokenSigner::write`] makes
//!   its tokens.
//! - [`LinkToken::read`] reads a token that came back; [`TokenSigner::has_signed`] checks it.
//! - `link_check` finds links in a rendered message that a reader cannot follow.
//!
//! `placeholder` defines the tags that stand for tokens in the source of a template.
//!
//! Not here: [`template`](super::template) and `compose` fill the placeholders in; the public
//! listener is in `http/public`; `feedback` decides what a hit counts for.

pub(super) mod link_check;
pub(super) mod placeholder;
mod protected_tags;
mod rewrite;
#[cfg(test)]
mod rewrite_tests;
mod token;

pub use rewrite::web_address;
pub(super) use rewrite::{RewrittenHtml, is_web, rewrite};
pub use token::{LinkPurpose, LinkToken, TokenHolder, TokenKey, TokenSigner};
