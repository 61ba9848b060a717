//! Parses a template of literal text, merge fields, conditions and loops into merge steps.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::Value as Json;

use super::literal_runs::next_tag;
use crate::mail::links::{LinkPurpose, placeholder};

/// One step of a merge.
#[derive(Debug)]
pub enum MergeStep {
    /// Writes literal text.
    Text(String),
    /// Writes the value of a field.
    Field(FieldPath),
    /// Writes a token.
    Token(LinkPurpose),
    /// Takes one of two branches.
    If { test: FieldPath, negated: bool, then: Vec<MergeStep>, otherwise: Vec<MergeStep> },
    /// Repeats `body` for each item, or takes `otherwise` if there is none.
    For { over: LoopOver, body: Vec<MergeStep>, otherwise: Vec<MergeStep> },
}

/// The path to a value: `root.attribute.attribute`.
#[derive(Debug)]
pub struct FieldPath {
    /// The first name.
    pub root: PathRoot,
    /// The names after it.
    pub attributes: Vec<String>,
}

/// The first name of a path.
#[derive(Debug)]
pub enum PathRoot {
    /// A merge field.
    Field(String),
    /// The item of the loop at this depth; 0 is the outermost.
    Item(usize),
}

/// The items of a loop.
#[derive(Debug)]
pub enum LoopOver {
    /// The list at a path.
    Path(FieldPath),
    /// A range such as `range(3)`, with its length.
    Numbers(usize),
}

/// The longest range that is parsed. Longer ones are left to the engine.
const LONGEST_RANGE: usize = 1000;

/// The items of all ranges. If each loop had its own, they could take 800 times the source.
pub static NUMBERS: LazyLock<Vec<Json>> =
    LazyLock::new(|| (0..LONGEST_RANGE).map(Json::from).collect());

/// The merge steps of a template that the engine has accepted. `used` are its merge fields.
///
/// `None` if the template holds anything that is not a merge step.
pub fn parse(source: &str, used: &BTreeSet<String>) -> Option<Vec<MergeStep>> {
    let mut parser = Parser { rest: source, trim: false, used, variables: Vec::new() };
    let (steps, end) = parser.block()?;
    end.is_empty().then_some(steps)
}

struct Parser<'a> {
    rest: &'a str,
    /// The last tag removes the white space after it.
    trim: bool,
    used: &'a BTreeSet<String>,
    /// The variables of the open loops, the outermost first.
    variables: Vec<&'a str>,
}

impl<'a> Parser<'a> {
    /// The steps up to the end of the source, or up to a tag that ends or divides a block.
    ///
    /// Returns also the words of that tag, none at the end of the source.
    fn block(&mut self) -> Option<(Vec<MergeStep>, Vec<&'a str>)> {
        let mut steps = Vec::new();
        loop {
            let (mut literal, tag) = next_tag(self.rest)?;
            self.rest = &self.rest[literal.len() + tag.map_or(0, str::len)..];
            if self.trim {
                literal = literal.trim_start();
            }
            let inner = tag.map_or("", |tag| &tag[2..tag.len() - 2]);
            // A tag that is one dash only is left to the engine. The engine takes this dash as the
            // one at the start, not also as the one at the end.
            if inner == "-" {
                return None;
            }
            if inner.starts_with('-') {
                literal = literal.trim_end();
            }
            if !literal.is_empty() {
                steps.push(MergeStep::Text(literal.to_owned()));
            }
            let Some(tag) = tag else { return Some((steps, Vec::new())) };
            self.trim = inner.ends_with('-');
            let inner = inner.strip_prefix('-').unwrap_or(inner);
            let inner = inner.strip_suffix('-').unwrap_or(inner);
            if let Some(purpose) = placeholder::read(tag) {
                steps.push(MergeStep::Token(purpose));
            } else if tag.starts_with("{{") {
                steps.push(MergeStep::Field(self.path(inner.trim_ascii())?));
            } else if tag.starts_with("{%") {
                let words: Vec<&str> = inner.split_ascii_whitespace().collect();
                match words.as_slice() {
                    ["if", test @ ..] => steps.push(self.condition(test)?),
                    ["for", variable, "in", over] => steps.push(self.repetition(variable, over)?),
                    ["else" | "endif" | "endfor"] | ["elif", ..] => return Some((steps, words)),
                    _ => return None,
                }
            }
        }
    }

    fn condition(&mut self, test: &[&'a str]) -> Option<MergeStep> {
        let (negated, name) = match test {
            ["not", name] => (true, name),
            [name] => (false, name),
            _ => return None,
        };
        let test = self.path(name)?;
        let (then, end) = self.block()?;
        let otherwise = match end.as_slice() {
            ["elif", test @ ..] => vec![self.condition(test)?],
            end => self.otherwise(end, "endif")?,
        };
        Some(MergeStep::If { test, negated, then, otherwise })
    }

    fn repetition(&mut self, variable: &'a str, over: &str) -> Option<MergeStep> {
        let length = over.strip_prefix("range(").and_then(|rest| rest.strip_suffix(')'));
        let over = match length {
            Some(length) => {
                let length = length.parse().ok().filter(|length| *length <= LONGEST_RANGE)?;
                LoopOver::Numbers(length)
            }
            None => LoopOver::Path(self.path(over)?),
        };
        // A variable named `range` would change the meaning of later ranges.
        if !is_name(variable) || variable == "range" {
            return None;
        }
        self.variables.push(variable);
        let (body, end) = self.block()?;
        self.variables.pop();
        let otherwise = self.otherwise(&end, "endfor")?;
        Some(MergeStep::For { over, body, otherwise })
    }

    fn otherwise(&mut self, end: &[&str], last: &str) -> Option<Vec<MergeStep>> {
        match end {
            ["else"] => {
                self.block().filter(|(_, end)| end.as_slice() == [last]).map(|(steps, _)| steps)
            }
            end => (end == [last]).then(Vec::new),
        }
    }

    fn path(&self, text: &str) -> Option<FieldPath> {
        let mut names = text.split('.');
        let name = names.next()?;
        let root = match self.variables.iter().rposition(|variable| *variable == name) {
            Some(depth) => PathRoot::Item(depth),
            // Only a name can be a used field; `true`, for example, is not.
            None => PathRoot::Field(self.used.get(name)?.clone()),
        };
        let attributes =
            names.map(|name| is_name(name).then(|| name.to_owned())).collect::<Option<_>>()?;
        Some(FieldPath { root, attributes })
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
