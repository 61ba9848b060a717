//! Template tags in HTML: a number stands for each tag while a parser of HTML reads the source.

use std::collections::BTreeSet;

use crate::mail::template::template_tag;

/// Begins the number of a protected tag. In the source itself, this character is protected, too.
const OPEN: char = '\u{E000}';
/// Ends the number of a protected tag.
const CLOSE: char = '\u{E001}';

/// The template tags of a source, by their numbers.
#[derive(Default)]
pub struct ProtectedTags(Vec<String>);

impl ProtectedTags {
    /// Replaces every template tag in `source` by its number. Returns the HTML and the tags.
    pub fn protect(source: &str) -> (String, Self) {
        let (mut html, mut tags) = (String::with_capacity(source.len()), Self::default());
        let mut rest = source;
        while let Some(at) = rest.find(['{', OPEN, CLOSE]) {
            html.push_str(&rest[..at]);
            rest = &rest[at..];
            let length = match (template_tag(rest), rest.chars().next()) {
                (Some((tag, _)), _) => tag.len(),
                (None, Some('{')) => {
                    html.push('{');
                    rest = &rest[1..];
                    continue;
                }
                (None, first) => first.map_or(0, char::len_utf8),
            };
            html.push_str(&tags.add(rest[..length].to_owned()));
            rest = &rest[length..];
        }
        html.push_str(rest);
        (html, tags)
    }

    /// Adds a tag. Returns the text that stands for it.
    pub fn add(&mut self, tag: String) -> String {
        self.0.push(tag);
        format!("{OPEN}{}{CLOSE}", self.0.len() - 1)
    }

    /// Puts the tags back in place of their numbers.
    pub fn restore(&self, html: &str) -> String {
        let mut pieces = html.split(OPEN);
        let mut source = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (number, after) = piece.split_once(CLOSE).unwrap_or((piece, ""));
            let tag = number.parse().ok().and_then(|number: usize| self.0.get(number));
            source.push_str(tag.map_or("", String::as_str));
            source.push_str(after);
        }
        source
    }

    /// The names that a tag defines somewhere in the template, such as the variable of a loop.
    ///
    /// The set may hold other words of such tags, too.
    pub fn bound_names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> =
            ["loop", "self", "super", "caller", "varargs", "kwargs"].map(str::to_owned).into();
        for tag in self.0.iter().filter_map(|tag| tag.strip_prefix("{%")) {
            let tag = tag.trim_start_matches(['-', '+']).trim_start();
            let (keyword, rest) =
                tag.split_at(tag.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tag.len()));
            let bound = match keyword {
                "for" => rest.split_once(" in ").map_or(rest, |(names, _)| names),
                "set" => rest.split_once('=').map_or(rest, |(names, _)| names),
                "with" | "macro" | "call" | "import" | "from" => rest,
                _ => continue,
            };
            names.extend(
                bound
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned),
            );
        }
        names
    }
}
