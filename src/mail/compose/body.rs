//! The text of one part, in which marks stand for literal runs that are encoded already.
//!
//! A literal run is a number of lines without template tags. Only its tokens differ between
//! messages, so the encoding is done once per delivery.

use super::{quoted_printable::quoted_printable, text_with_tokens::TextWithTokens};
use crate::mail::links::TokenSigner;

/// The mark of run 0. Marks are characters of the last private-use plane.
const FIRST_MARK: u32 = 0x10_0000;
/// How many marks there are.
const MARKS: u32 = 0xFFFE;
/// The first byte of every mark in UTF-8. No character outside that plane begins with it.
const MARK_LEAD_BYTE: u8 = 0xF4;

/// Literal lines with their line ends. Only the last run of a text may lack the last line end.
#[derive(Debug)]
pub struct LiteralRun {
    text: TextWithTokens,
    encoded: TextWithTokens,
    non_ascii_bytes: usize,
}

impl LiteralRun {
    /// Encodes the lines. `source` may hold placeholders.
    pub fn new(source: &str) -> Self {
        let text = TextWithTokens::new(source);
        Self { encoded: text.encoded(), non_ascii_bytes: non_ascii_bytes(source), text }
    }
}

/// The mark of run `number`. `None` from number 65 534 on, because there are no more marks.
pub fn mark(number: usize) -> Option<char> {
    let number = u32::try_from(number).ok().filter(|number| *number < MARKS)?;
    char::from_u32(FIRST_MARK + number)
}

/// Whether a text may hold a mark. Other characters of the plane count, too.
pub fn holds_mark(text: &str) -> bool {
    memchr::memchr(MARK_LEAD_BYTE, text.as_bytes()).is_some()
}

/// The text of a part. If there are no runs, no character in the text is a mark.
pub struct Body<'a> {
    marked: String,
    runs: &'a [LiteralRun],
    signer: Option<&'a TokenSigner>,
    /// The size in bytes, with the runs in place of their marks.
    pub bytes: usize,
    non_ascii_bytes: usize,
    /// The estimated size in quoted-printable, in bytes.
    pub encoded_bytes: usize,
}

enum Piece<'a> {
    /// Whole lines.
    Text(&'a str),
    Run(&'a LiteralRun),
}

impl<'a> Body<'a> {
    /// A text with marks for `runs`. Runs with placeholders need a signer.
    ///
    /// Every mark must stand at the start of a line. The text after a mark must begin another line.
    pub fn new(marked: String, runs: &'a [LiteralRun], signer: Option<&'a TokenSigner>) -> Self {
        let (mut bytes, mut non_ascii, mut encoded_bytes) = (0, 0, 0);
        for piece in pieces(&marked, runs) {
            match piece {
                Piece::Text(text) => {
                    bytes += text.len();
                    non_ascii += non_ascii_bytes(text);
                    encoded_bytes += text.len() + text.len() / 8;
                }
                Piece::Run(run) => {
                    bytes += run.text.bytes();
                    non_ascii += run.non_ascii_bytes;
                    encoded_bytes += run.encoded.bytes();
                }
            }
        }
        Self { marked, runs, signer, bytes, non_ascii_bytes: non_ascii, encoded_bytes }
    }

    /// Whether base64 is clearly shorter than quoted-printable: more than a third of the bytes are
    /// not ASCII.
    pub fn is_shorter_in_base64(&self) -> bool {
        self.non_ascii_bytes * 3 > self.bytes
    }

    /// The whole text, with tokens.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(self.bytes);
        for piece in pieces(&self.marked, self.runs) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Run(run) => run.text.write(&mut out, self.signer),
            }
        }
        out
    }

    /// Appends the text in quoted-printable, with tokens.
    pub fn quoted_printable(&self, out: &mut String) {
        for piece in pieces(&self.marked, self.runs) {
            match piece {
                Piece::Text(text) => quoted_printable(out, text),
                Piece::Run(run) => run.encoded.write(out, self.signer),
            }
        }
    }
}

fn pieces<'a>(marked: &'a str, runs: &'a [LiteralRun]) -> impl Iterator<Item = Piece<'a>> {
    let mut rest = marked;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let marked_run =
            u32::from(first).checked_sub(FIRST_MARK).and_then(|number| runs.get(number as usize));
        if let Some(run) = marked_run {
            rest = &rest[first.len_utf8()..];
            return Some(Piece::Run(run));
        }
        let first_bytes = first.len_utf8();
        let next = if runs.is_empty() {
            None
        } else {
            memchr::memchr(MARK_LEAD_BYTE, &rest.as_bytes()[first_bytes..])
        };
        let (text, after) = rest.split_at(next.map_or(rest.len(), |at| first_bytes + at));
        rest = after;
        Some(Piece::Text(text))
    })
}

fn non_ascii_bytes(text: &str) -> usize {
    if text.is_ascii() { 0 } else { text.bytes().filter(|b| !b.is_ascii()).count() }
}
