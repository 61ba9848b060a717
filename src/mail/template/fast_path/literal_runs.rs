//! Takes the lines without template tags out of a template, so that they are encoded only once.

use crate::mail::{
    compose::{LiteralRun, holds_mark, mark},
    links::placeholder,
    template::template_tag,
};

/// Tags that leave the text around them in place.
///
/// Other tags, such as macros and `include`, may capture or repeat it.
const TRANSPARENT_TAGS: [&str; 9] =
    ["if", "elif", "else", "endif", "for", "endfor", "set", "with", "endwith"];

/// The template with marks in place of its literal runs, and the runs.
///
/// `None` if nothing may be taken out, or if there are more runs than marks. The engine drops one
/// line end at the end of a template; so does this function.
pub fn extract(source: &str) -> Option<(String, Vec<LiteralRun>)> {
    if holds_mark(source) {
        return None;
    }
    let source = source.strip_suffix('\n').unwrap_or(source);
    let source = source.strip_suffix('\r').unwrap_or(source);
    let (mut marked, mut runs) = (String::with_capacity(source.len()), Vec::new());
    let mut rest = source;
    let mut before = None;
    loop {
        let (literal, tag) = next_tag_but_placeholders(rest)?;
        let range = whole_lines(literal, before, tag);
        let (start, lines, end) =
            (&literal[..range.start], &literal[range.clone()], &literal[range.end..]);
        marked.push_str(start);
        if !lines.is_empty() {
            marked.push(mark(runs.len())?);
            runs.push(LiteralRun::new(lines));
        }
        marked.push_str(end);
        let Some(tag) = tag else { return Some((marked, runs)) };
        marked.push_str(tag);
        rest = &rest[literal.len() + tag.len()..];
        before = Some(tag);
    }
}

/// As [`next_tag`], but a placeholder counts as text: a literal run may hold tokens.
fn next_tag_but_placeholders(source: &str) -> Option<(&str, Option<&str>)> {
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

/// The text up to the next tag, and the tag.
///
/// `None` if the tag may capture or repeat text, or if its end is not certain. Then nothing can be
/// taken out.
pub fn next_tag(source: &str) -> Option<(&str, Option<&str>)> {
    let begins =
        |(at, _): &(usize, &str)| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    let Some((at, _)) = source.match_indices('{').find(begins) else { return Some((source, None)) };
    let (tag, _) = template_tag(&source[at..])?;
    let inner = &tag[2..tag.len() - 2];
    let transparent = match &tag[..2] {
        "{#" => true,
        // A brace inside might hide the end of the tag.
        _ if inner.contains(['{', '}']) => false,
        // A recursive loop can be captured.
        "{%" if inner.contains("recursive") => false,
        "{%" => {
            let name = inner.trim_start_matches(['-', '+']).trim_start();
            let end =
                name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
            TRANSPARENT_TAGS.contains(&&name[..end])
        }
        _ => true,
    };
    transparent.then_some((&source[..at], Some(tag)))
}

/// The lines of a literal that stay whole for every result of the tags before and after.
///
/// A `-` in a tag removes white space up to the nearest letter. So the line with that letter does
/// not count.
fn whole_lines(literal: &str, before: Option<&str>, after: Option<&str>) -> std::ops::Range<usize> {
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
