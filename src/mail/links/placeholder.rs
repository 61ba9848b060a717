//! Placeholders: template tags that stand for tokens, such as `{{ __token[3] }}`.

use super::token::LinkPurpose;

/// The name under which the engine finds the tokens of a message.
pub const NAME: &str = "__token";
/// The most tracked links of a template. Two larger numbers are reserved: for the open pixel and
/// the mirror page.
pub const MAX_LINKS: usize = 65_000;
const OPEN: u16 = u16::MAX;
const MIRROR: u16 = u16::MAX - 1;

const BEGIN: &str = "{{ __token[";
const END: &str = "] }}";

/// The placeholder for a token.
pub fn tag(purpose: LinkPurpose) -> String {
    let number = match purpose {
        LinkPurpose::Click(link) => link,
        LinkPurpose::Open => OPEN,
        // Never called for an opt-out: its whole address is a merge field. The number is arbitrary.
        LinkPurpose::Mirror | LinkPurpose::OptOut => MIRROR,
    };
    format!("{BEGIN}{number}{END}")
}

/// The purpose of the token with this number.
pub fn purpose(number: u16) -> LinkPurpose {
    match number {
        OPEN => LinkPurpose::Open,
        MIRROR => LinkPurpose::Mirror,
        link => LinkPurpose::Click(link),
    }
}

/// The purpose of a placeholder; `None` if the template tag is not one.
pub fn read(tag: &str) -> Option<LinkPurpose> {
    tag.strip_prefix(BEGIN)?.strip_suffix(END)?.parse().ok().map(purpose)
}

/// The pieces of a text, each with the purpose of the placeholder after it. The last has none.
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
