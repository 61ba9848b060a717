//! Composing: turns the merged texts of one message into the bytes that go over the wire.
//!
//! Entry points:
//!
//! - [`Draft`] holds the texts of one recipient; [`Draft::encode`] writes headers, bodies and MIME
//!   boundaries around them (RFC 5322, RFC 2045 to 2047).
//! - [`Body`] is the text of one part. [`LiteralRun`]s in it are encoded once per delivery, and
//!   [`mark`]s stand for them in the text.
//! - [`MessageStamp`] holds the values that make a message unique and repeatable; [`StampKey`]
//!   derives them. [`ProofMarks`] tell a proof from the message itself.
//!
//! Files: `mime` writes headers and parts, `quoted_printable` is one of the two encodings, `body`
//! handles marks, `text_with_tokens` handles tokens.
//!
//! Not here: merge fields and templates are in [`template`](super::template), tokens in
//! [`links`](super::links), dot stuffing and the envelope in [`smtp`](super::smtp).

mod body;
mod draft;
pub(super) mod mime;
mod quoted_printable;
mod stamp;
mod text_with_tokens;

pub use body::{Body, LiteralRun, holds_mark, mark};
pub use draft::Draft;
pub use stamp::{MessageStamp, ProofMarks, StampKey};
