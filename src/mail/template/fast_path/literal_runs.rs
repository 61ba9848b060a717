//! Cuts the lines without any template tag out of a template: they are encoded once, not for every recipient.

use crate::mail::{
    compose::{LiteralRun, holds_mark, mark},
    links::placeholder,
    template::template_tag,
};

/// Tags that leave the text around them in place; others, such as macros and `include`, may capture or repeat it.
const HARMLESS: [&str; 9] =
    ["if", "elif", "else", "endif", "for", "endfor", "set", "with", "endwith"];

/// The template with marks in place of runs of literal lines, and the runs. `None` if it is to be left as it is.
///
/// The engine drops one line end at the end of a template: it is dropped here.
pub fn cut(source: &str) -> Option<(String, Vec<LiteralRun>)> {
    if holds_mark(source) {
        return None;
    }
    let source = source.strip_suffix('\n').unwrap_or(source);
    let source = source.strip_suffix('\r').unwrap_or(source);
    let (mut marked, mut runs) = (String::with_capacity(source.len()), Vec::new());
    let mut rest = source;
    let mut before = None;
    loop {
        let (literal, tag) = next_but_holes(rest)?;
        let lines = lines(literal, before, tag);
        let (head, lines, tail) =
            (&literal[..lines.start], &literal[lines.clone()], &literal[lines.end..]);
        marked.push_str(head);
        if !lines.is_empty() {
            marked.push(mark(runs.len())?);
            runs.push(LiteralRun::new(lines));
        }
        marked.push_str(tail);
        let Some(tag) = tag else { return Some((marked, runs)) };
        marked.push_str(tag);
        rest = &rest[literal.len() + tag.len()..];
        before = Some(tag);
    }
}

/// As [`next_tag`], but a hole is literal: it is filled in what is encoded.
fn next_but_holes(source: &str) -> Option<(&str, Option<&str>)> {
    let mut length = 0;
    loop {
        let (literal, tag) = next_tag(&source[length..])?;
        length += literal.len();
        match tag {
            Some(tag) if placeholder::read(tag).is_some() => length += tag.len(),
            _ => return Some((&source[..length], tag)),
        }
    }
}

/// The text up to the next tag, and the tag. `None` if that tag keeps the template from being cut.
pub fn next_tag(source: &str) -> Option<(&str, Option<&str>)> {
    let begins =
        |(at, _): &(usize, &str)| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    let Some((at, _)) = source.match_indices('{').find(begins) else { return Some((source, None)) };
    let (tag, _) = template_tag(&source[at..])?;
    let inner = &tag[2..tag.len() - 2];
    let harmless = match &tag[..2] {
        "{#" => true,
        // a brace within might hide the end
        _ if inner.contains(['{', '}']) => false,
        // it may be captured
        "{%" if inner.contains("recursive") => false,
        "{%" => {
            let name = inner.trim_start_matches(['-', '+']).trim_start();
            let end =
                name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
            HARMLESS.contains(&&name[..end])
        }
        _ => true,
    };
    harmless.then_some((&source[..at], Some(tag)))
}

/// The lines of a literal that stay whole and in place whatever its neighbours come to. A `-` of theirs takes white space
/// away up to the first and the last letter: the lines with these do not count.
fn lines(literal: &str, before: Option<&str>, after: Option<&str>) -> std::ops::Range<usize> {
    let start = before.map_or(Some(0), |tag| {
        let trimmed = if tag[..tag.len() - 2].ends_with('-') {
            literal.len() - literal.trim_start().len()
        } else {
            0
        };
        Some(trimmed + literal[trimmed..].find('\n')? + 1)
    });
    let end = after.map_or(Some(literal.len()), |tag| {
        let kept = if tag[2..].starts_with('-') { literal.trim_end() } else { literal };
        Some(kept.rfind('\n')? + 1)
    });
    match (start, end) {
        (Some(start), Some(end)) if start < end => start..end,
        _ => literal.len()..literal.len(),
    }
}
