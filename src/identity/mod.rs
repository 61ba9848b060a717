//! Identity: who calls, and with which roles.
//!
//! - [`Keyring`] knows the configured bearer tokens (by their SHA-256) and the keys of JWT issuers.
//!   It turns a token into a principal with roles.
//! - [`Claims`] are the claims of a JWT (RFC 7519). A JWT without an action lets its principal call
//!   the API. A JWT with the action [`CONFIRM_SEND`] is valid for one job only.
//! - [`NotAuthentic`] says why a token is refused. Its text never repeats the token.
//!
//! HTTP (`http`) and the confirmation from the queue (`send::confirm`) use the same keyring.
//!
//! Not here: what a role permits (`domain::role` and the table of routes in `http`), the count
//! of failed log-ins (`http`), which tokens are spent (`send::confirm`), and the command that makes
//! tokens (`cli`).

mod bearer_token;
mod claims;
mod jwt_issuer;
mod keyring;

pub use bearer_token::BearerToken;
pub use claims::{Claims, JwtAudience};
pub use keyring::{CONFIRM_SEND, Keyring, NotAuthentic, claimed_name};
