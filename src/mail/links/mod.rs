//! TODO head

pub mod link_check;
pub mod placeholder;
pub mod rewrite;
pub mod token;

pub use rewrite::{RewrittenHtml, is_web, rewrite, web_address};
pub use token::{LinkPurpose, LinkToken, TokenHolder, TokenKey, TokenSigner};
