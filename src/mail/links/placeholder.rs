//! Holes: where tokens go. In the source of a template a hole is a tag of its own, `{{ __token[3] }}`.

use super::token::LinkPurpose;

/// What the engine finds the tokens of a message under.
pub const NAME: &str = "__token";
/// More links are not told apart: the numbers after them stand for other purposes.
pub const MOST_LINKS: usize = 65_000;
const OPEN: u16 = u16::MAX;
const MIRROR: u16 = u16::MAX - 1;

const BEGIN: &str = "{{ __token[";
const END: &str = "] }}";

pub fn tag(purpose: LinkPurpose) -> String {
    let number = match purpose {
        LinkPurpose::Click(link) => link,
        LinkPurpose::Open => OPEN,
        // the address of an opt-out is a merge field
        LinkPurpose::Mirror | LinkPurpose::OptOut => MIRROR,
    };
    format!("{BEGIN}{number}{END}")
}

pub fn purpose(number: u16) -> LinkPurpose {
    match number {
        OPEN => LinkPurpose::Open,
        MIRROR => LinkPurpose::Mirror,
        link => LinkPurpose::Click(link),
    }
}

/// What the hole is for, if a template tag is one.
pub fn read(tag: &str) -> Option<LinkPurpose> {
    tag.strip_prefix(BEGIN)?.strip_suffix(END)?.parse().ok().map(purpose)
}

/// The pieces of a text, each with the hole that follows it; the last has none.
pub fn split(text: &str) -> impl Iterator<Item = (&str, Option<LinkPurpose>)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let Some(at) = text.find(BEGIN) else { return Some((text, None)) };
        let length = text[at..].find(END).map_or(text.len() - at, |end| end + END.len());
        rest = Some(&text[at + length..]);
        Some((&text[..at], read(&text[at..at + length])))
    })
}
