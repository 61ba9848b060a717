//! Mail: from a delivery's content to messages, and from messages to the relays.
//!
//! The rooms:
//!
//! - `compose`: headers, bodies and transfer encodings of one message (RFC 5322, MIME).
//! - [`links`]: rewritten links, placeholders for tokens, and the signed tokens themselves.
//! - [`template`]: source → compiled [`template::Template`] → the bytes of a recipient's message.
//! - [`smtp`]: connections to the relays, transactions, and the choice of a relay.
//! - [`catcher`]: the built-in SMTP server that keeps messages and delivers nothing.
//!
//! Entry points: [`MessageMaker`] makes stamps, token signers and compiled templates;
//! [`template::Template::render`] makes a message; [`smtp::Relays::connection`] gives a connection
//! that sends it. [`to_ascii`] gives the form in which an address goes over SMTP.
//!
//! This room knows nothing of Redis, ledgers or jobs. `send` decides who gets a message and when;
//! `feedback` reads the tokens that come back.

mod ascii_address;
pub mod catcher;
mod compose;
pub mod links;
pub mod smtp;
pub mod template;

pub use ascii_address::{address_key, to_ascii};
pub use compose::StampKey;
pub use template::MessageMaker;
