//! A part's text in which marks stand for literal lines whose encoding is known: they are the same in every message.

use super::quoted_printable::{SOFT_BREAK, quoted_printable};
use crate::mail::links::{LinkPurpose, TokenSigner, placeholder};

/// A mark is one character: this one plus the number of its run, of the last private-use plane.
const FIRST_MARK: u32 = 0x10_0000;
const MARKS: u32 = 0xFFFE;
/// The first byte of every mark in UTF-8, and of nothing outside its plane.
const LEAD: u8 = 0xF4;

/// Literal lines, each with its line end; only the last run of a text may lack one.
#[derive(Debug)]
pub struct LiteralRun {
    text: Holed,
    encoded: Holed,
    foreign: usize,
}

impl LiteralRun {
    /// `source` may hold holes.
    pub fn new(source: &str) -> Self {
        let text = Holed::new(source);
        Self { encoded: text.encoded(), foreign: foreign(source), text }
    }
}

/// A text with places for tokens.
#[derive(Debug, Default)]
struct Holed {
    text: String,
    holes: Vec<Hole>,
}

#[derive(Debug)]
struct Hole {
    at: usize,
    purpose: LinkPurpose,
    /// Its token is broken there by the end of an encoded line.
    fold: Option<usize>,
}

impl Holed {
    fn new(source: &str) -> Self {
        let mut this = Self::default();
        for (text, purpose) in placeholder::split(source) {
            this.text.push_str(text);
            this.holes.extend(purpose.map(|purpose| Hole {
                at: this.text.len(),
                purpose,
                fold: None,
            }));
        }
        this
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.holes.iter().map(|hole| hole.purpose.token_bytes()).sum::<usize>()
    }

    /// With tokens; a text without holes needs no signer.
    fn write(&self, out: &mut String, signer: Option<&TokenSigner>) {
        let mut written = 0;
        for hole in &self.holes {
            out.push_str(&self.text[written..hole.at]);
            written = hole.at;
            let Some(signer) = signer else { continue };
            let begun = out.len();
            signer.write(out, hole.purpose);
            if let Some(fold) = hole.fold {
                out.insert_str(begun + fold, SOFT_BREAK);
            }
        }
        out.push_str(&self.text[written..]);
    }

    /// In quoted-printable. What a token is of stands as it is, whichever it is, so the encodings with two different ones in
    /// each hole differ exactly where tokens are.
    fn encoded(&self) -> Self {
        let [one, other] = ["A", "B"].map(|letter| {
            let (mut text, mut encoded, mut written) =
                (String::with_capacity(self.bytes()), String::new(), 0);
            for hole in &self.holes {
                text.push_str(&self.text[written..hole.at]);
                text.push_str(&letter.repeat(hole.purpose.token_bytes()));
                written = hole.at;
            }
            text.push_str(&self.text[written..]);
            quoted_printable(&mut encoded, &text);
            encoded
        });
        let (mut encoded, mut holes, mut left) = (Self::default(), self.holes.iter(), 0);
        let mut at = 0;
        while at < one.len() {
            if one.as_bytes()[at] != other.as_bytes()[at] {
                if left == 0
                    && let Some(Hole { purpose, .. }) = holes.next()
                {
                    left = purpose.token_bytes();
                    encoded.holes.push(Hole {
                        at: encoded.text.len(),
                        purpose: *purpose,
                        fold: None,
                    });
                }
                left -= 1;
                at += 1;
            } else if let (Some(hole), 1..) = (encoded.holes.last_mut(), left) {
                hole.fold = Some(hole.purpose.token_bytes() - left);
                at += SOFT_BREAK.len();
            } else {
                encoded.text.push(char::from(one.as_bytes()[at]));
                at += 1;
            }
        }
        encoded.text.shrink_to_fit();
        encoded
    }
}

/// What stands for run `number`; there are no more than 65 534.
pub fn mark(number: usize) -> Option<char> {
    let number = u32::try_from(number).ok().filter(|number| *number < MARKS)?;
    char::from_u32(FIRST_MARK + number)
}

/// Whether a text could be taken to hold a mark.
pub fn holds_mark(text: &str) -> bool {
    memchr::memchr(LEAD, text.as_bytes()).is_some()
}

/// The text of a part. Without runs nothing in it is a mark.
pub struct Body<'a> {
    marked: String,
    runs: &'a [LiteralRun],
    signer: Option<&'a TokenSigner>,
    /// Its size with the runs in place of their marks.
    pub bytes: usize,
    foreign: usize,
    /// About what it takes in quoted-printable.
    pub encoded_bytes: usize,
}

enum Piece<'a> {
    /// Begins at the start of a line, and ends at the end of one.
    Text(&'a str),
    Run(&'a LiteralRun),
}

impl<'a> Body<'a> {
    /// Every mark stands at the start of a line, and what follows it at the start of another.
    /// Runs with holes need a signer.
    pub fn new(marked: String, runs: &'a [LiteralRun], signer: Option<&'a TokenSigner>) -> Self {
        let (mut bytes, mut foreign_bytes, mut encoded_bytes) = (0, 0, 0);
        for piece in pieces(&marked, runs) {
            match piece {
                Piece::Text(text) => {
                    bytes += text.len();
                    foreign_bytes += foreign(text);
                    encoded_bytes += text.len() + text.len() / 8;
                }
                Piece::Run(run) => {
                    bytes += run.text.bytes();
                    foreign_bytes += run.foreign;
                    encoded_bytes += run.encoded.bytes();
                }
            }
        }
        Self { marked, runs, signer, bytes, foreign: foreign_bytes, encoded_bytes }
    }

    /// Mostly foreign letters: base64 is shorter.
    pub fn is_foreign(&self) -> bool {
        self.foreign * 3 > self.bytes
    }

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
        let begun = first.len_utf8();
        let next =
            if runs.is_empty() { None } else { memchr::memchr(LEAD, &rest.as_bytes()[begun..]) };
        let (text, after) = rest.split_at(next.map_or(rest.len(), |at| begun + at));
        rest = after;
        Some(Piece::Text(text))
    })
}

fn foreign(text: &str) -> usize {
    if text.is_ascii() { 0 } else { text.bytes().filter(|b| !b.is_ascii()).count() }
}
