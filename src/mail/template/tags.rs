//! Reads template tags and HTML tags in the source of a template.

/// The longest tag that the template engine parses without an overflow of the stack.
///
/// Its parser follows a chain such as `a.b.c` by recursion.
const TAG_LIMIT_BYTES: usize = 4096;
/// The most `elif` branches, for the same reason.
const BRANCH_LIMIT: usize = 200;

/// The template tag at the start of `source`, and the rest. A raw block counts as one tag.
pub fn template_tag(source: &str) -> Option<(&str, &str)> {
    let close = match source.get(..2)? {
        "{{" => "}}",
        "{%" => "%}",
        "{#" => "#}",
        _ => return None,
    };
    let mut length = 2 + tag_length(&source[2..], close, close == "#}")?;
    if is_raw(&source[..length]) {
        let end = source[length..].find("endraw")?;
        length += end + source[length + end..].find("%}")? + 2;
    }
    Some(source.split_at(length))
}

/// Whether a tag begins a raw block. The content of a raw block is not a template.
fn is_raw(tag: &str) -> bool {
    let Some((first, _)) = tag.split_once("%}") else { return false };
    let inner = first.strip_prefix("{%").unwrap_or_default();
    inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') == "raw"
}

/// The length up to and including `close`. A `close` inside a string does not count.
fn tag_length(source: &str, close: &str, comment: bool) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in source.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if source[at..].starts_with(close) => return Some(at + close.len()),
            None if !comment && (c == '"' || c == '\'') => quote = Some(c),
            None => {}
        }
    }
    None
}

/// Why a template must not be parsed: it is too deep, or a comment has no end. With the line (from
/// 1).
pub fn too_deep(source: &str) -> Option<(u32, String)> {
    let mut at = 0;
    let line =
        |at: usize| u32::try_from(source[..at].matches('\n').count() + 1).unwrap_or(u32::MAX);
    while let Some(found) = source[at..].find('{') {
        at += found;
        let rest = &source[at..];
        let tag = template_tag(rest).map(|(tag, _)| tag);
        if tag.is_none() && rest.starts_with("{#") {
            // the search for its end is not repeated for each later comment
            return Some((line(at), "a comment without an end".to_owned()));
        }
        let begins = ["{{", "{%"].iter().any(|open| rest.starts_with(open));
        // The engine parses a tag without an end up to the end of the source.
        let length = tag.map_or(if begins { rest.len() } else { 1 }, str::len);
        if begins && length > TAG_LIMIT_BYTES && !tag.is_some_and(is_raw) {
            return Some((line(at), format!("a template tag longer than {TAG_LIMIT_BYTES} bytes")));
        }
        at += length;
    }
    let (last, _) = source.match_indices("elif").nth(BRANCH_LIMIT)?;
    Some((line(last), format!("more than {BRANCH_LIMIT} elif branches")))
}

/// The HTML tag at the start of `source` without its brackets, and the rest.
///
/// A `>` inside quotes or template tags does not end the tag.
pub fn html_tag(source: &str) -> (&str, &str) {
    let mut at = 1;
    let mut quote = None;
    while let Some(c) = source[at..].chars().next() {
        if let Some((tag, _)) = template_tag(&source[at..]) {
            at += tag.len();
            continue;
        }
        match quote {
            None if c == '>' => return (&source[1..at], &source[at + 1..]),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        at += c.len_utf8();
    }
    (&source[1..], "")
}

/// The rest of `source` after the end tag of the element `name`.
pub fn after_element<'a>(name: &str, source: &'a str) -> &'a str {
    let mut rest = source;
    while let Some((_, after)) = rest.split_once("</") {
        if after.get(..name.len()).is_some_and(|end| end.eq_ignore_ascii_case(name)) {
            return after.split_once('>').map_or("", |(_, after)| after);
        }
        rest = after;
    }
    ""
}

/// The target of an `a` tag. `None` if it is missing, unquoted, empty or only a fragment.
pub fn link(tag: &str) -> Option<String> {
    let url = attribute(tag, "href")?.trim().replace("&amp;", "&");
    (!url.is_empty() && !url.starts_with('#')).then_some(url)
}

/// The value of a quoted attribute. A quote inside a template tag does not end the value.
pub fn attribute(tag: &str, name: &str) -> Option<String> {
    let lower = tag.to_ascii_lowercase();
    let mut from = 0;
    while let Some(found) = lower[from..].find(name) {
        let at = from + found;
        from = at + name.len();
        let value = tag[from..].trim_start().strip_prefix('=').map(str::trim_start);
        if let (true, Some(value)) = (lower[..at].ends_with(char::is_whitespace), value) {
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let mut end = 1;
            while let Some(c) = value[end..].chars().next().filter(|c| *c != quote) {
                end += template_tag(&value[end..]).map_or(c.len_utf8(), |(tag, _)| tag.len());
            }
            return Some(value[1..end].to_owned());
        }
    }
    None
}
