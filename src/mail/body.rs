//! A part's text in which marks stand for literal lines whose encoding is known: they are the same in every message.

use super::quoted::quoted_printable;

/// A mark is one character: this one plus the number of its run, of the last private-use plane.
const FIRST_MARK: u32 = 0x10_0000;
const MARKS: u32 = 0xFFFE;
/// The first byte of every mark in UTF-8, and of nothing outside its plane.
const LEAD: u8 = 0xF4;

/// Literal lines, each with its line end; only the last run of a text may lack one.
#[derive(Debug)]
pub struct Run {
    text: String,
    encoded: String,
    foreign: usize,
}

impl Run {
    pub fn new(text: &str) -> Self {
        let mut encoded = String::new();
        quoted_printable(&mut encoded, text);
        encoded.shrink_to_fit();
        Self { text: text.to_owned(), encoded, foreign: foreign(text) }
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
    runs: &'a [Run],
    /// Its size with the runs in place of their marks.
    pub bytes: usize,
    foreign: usize,
    /// About what it takes in quoted-printable.
    pub encoded_bytes: usize,
}

enum Piece<'a> {
    /// Begins at the start of a line, and ends at the end of one.
    Text(&'a str),
    Run(&'a Run),
}

impl<'a> Body<'a> {
    /// Every mark stands at the start of a line, and what follows it at the start of another.
    pub fn new(marked: String, runs: &'a [Run]) -> Self {
        let (mut bytes, mut foreign_bytes, mut encoded_bytes) = (0, 0, 0);
        for piece in pieces(&marked, runs) {
            match piece {
                Piece::Text(text) => {
                    bytes += text.len();
                    foreign_bytes += foreign(text);
                    encoded_bytes += text.len() + text.len() / 8;
                }
                Piece::Run(run) => {
                    bytes += run.text.len();
                    foreign_bytes += run.foreign;
                    encoded_bytes += run.encoded.len();
                }
            }
        }
        Self { marked, runs, bytes, foreign: foreign_bytes, encoded_bytes }
    }

    /// Mostly foreign letters: base64 is shorter.
    pub fn is_foreign(&self) -> bool {
        self.foreign * 3 > self.bytes
    }

    pub fn text(&self) -> String {
        let texts = pieces(&self.marked, self.runs).map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Run(run) => &run.text,
        });
        texts.collect()
    }

    pub fn quoted_printable(&self, out: &mut String) {
        for piece in pieces(&self.marked, self.runs) {
            match piece {
                Piece::Text(text) => quoted_printable(out, text),
                Piece::Run(run) => out.push_str(&run.encoded),
            }
        }
    }
}

fn pieces<'a>(marked: &'a str, runs: &'a [Run]) -> impl Iterator<Item = Piece<'a>> {
    let mut rest = marked;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let marked_run = u32::from(first).checked_sub(FIRST_MARK).and_then(|number| runs.get(number as usize));
        if let Some(run) = marked_run {
            rest = &rest[first.len_utf8()..];
            return Some(Piece::Run(run));
        }
        let begun = first.len_utf8();
        let next = if runs.is_empty() { None } else { memchr::memchr(LEAD, &rest.as_bytes()[begun..]) };
        let (text, after) = rest.split_at(next.map_or(rest.len(), |at| begun + at));
        rest = after;
        Some(Piece::Text(text))
    })
}

fn foreign(text: &str) -> usize {
    if text.is_ascii() { 0 } else { text.bytes().filter(|b| !b.is_ascii()).count() }
}
