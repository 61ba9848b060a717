//! Templates of literal text, merge fields, and conditions and loops over these, the most of them: merged without the engine.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::atomic::{AtomicUsize, Ordering},
};

use minijinja::HtmlEscape;
use serde_json::Value as Json;

use super::{
    fields::{Found, Values, lookup, value_of},
    steps::{Over, Path, Root, Step, read},
};
use crate::mail::body::holds_mark;

/// No more room is made beforehand: one recipient with a very long list is not to make it for all.
const ROOM_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct Merge {
    steps: Vec<Step>,
    /// Values are escaped.
    html: bool,
    /// The longest that it came to, within reason, so that the next one finds room.
    bytes: AtomicUsize,
}

/// What the engine would not do more of, either.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub steps: u64,
    pub bytes: usize,
}

impl Merge {
    /// `None` if the template holds anything else.
    pub fn new(source: &str, used: &BTreeSet<String>, html: bool) -> Option<Self> {
        Some(Self { steps: read(source, used)?, html, bytes: AtomicUsize::new(source.len().min(ROOM_BYTES)) })
    }

    /// `None` if it takes the engine: a field is missing or no text, number or truth value, or a limit is reached.
    pub fn render(&self, values: &Values<'_>, limits: Limits) -> Option<String> {
        let longest = self.bytes.load(Ordering::Relaxed);
        let out = String::with_capacity(longest);
        let mut merging = Merging { values, html: self.html, items: Vec::new(), out, limits };
        merging.go(&self.steps)?;
        if (longest..ROOM_BYTES).contains(&merging.out.len()) {
            self.bytes.fetch_max(merging.out.len(), Ordering::Relaxed);
        }
        Some(merging.out)
    }
}

struct Merging<'a> {
    values: &'a Values<'a>,
    html: bool,
    /// Where the loops are that are under way, the outermost first.
    items: Vec<&'a Json>,
    out: String,
    limits: Limits,
}

impl<'a> Merging<'a> {
    fn go(&mut self, steps: &'a [Step]) -> Option<()> {
        for step in steps {
            self.limits.steps = self.limits.steps.checked_sub(1)?;
            match step {
                Step::Text(text) => self.out.push_str(text),
                Step::Field(path) => self.write(path)?,
                Step::Token(purpose) => self.values.signer()?.write(&mut self.out, *purpose),
                Step::If { test, negated, then, otherwise } => {
                    let branch = if self.is_true(test)? != *negated { then } else { otherwise };
                    self.go(branch)?;
                }
                Step::For { over, body, otherwise } => self.repeat(over, body, otherwise)?,
            }
            if self.out.len() > self.limits.bytes {
                return None;
            }
        }
        Some(())
    }

    fn repeat(&mut self, over: &'a Over, body: &'a [Step], otherwise: &'a [Step]) -> Option<()> {
        let items = match over {
            Over::Numbers(numbers) => numbers,
            Over::Path(path) => match self.find(path)? {
                Found::Field(Json::Array(items)) => items,
                _ => return None,
            },
        };
        if items.is_empty() {
            return self.go(otherwise);
        }
        for item in items {
            self.limits.steps = self.limits.steps.checked_sub(1)?;
            self.items.push(item);
            self.go(body)?;
            self.items.pop();
        }
        Some(())
    }

    fn find(&self, path: &Path) -> Option<Found<'a>> {
        let mut found = match &path.root {
            Root::Item(depth) => Found::Field(self.items.get(*depth)?),
            Root::Field(name) => lookup(self.values, name)?,
        };
        for attribute in &path.attributes {
            found = match found {
                Found::Field(Json::Object(fields)) => Found::Field(fields.get(attribute)?),
                _ => return None,
            };
        }
        Some(found)
    }

    fn is_true(&self, path: &Path) -> Option<bool> {
        Some(match self.find(path)? {
            Found::Email(text) | Found::Url(text) => !text.is_empty(),
            Found::Field(Json::String(text)) => !text.is_empty(),
            Found::Field(value) => value_of(value)?.is_true(),
        })
    }

    fn write(&mut self, path: &Path) -> Option<()> {
        let text = match self.find(path)? {
            Found::Email(text) => text,
            Found::Url(url) => {
                self.out.push_str(url);
                return Some(());
            }
            Found::Field(Json::String(text)) => text,
            Found::Field(value @ (Json::Number(_) | Json::Bool(_))) => return write!(self.out, "{}", value_of(value)?).ok(),
            Found::Field(_) => return None,
        };
        if holds_mark(text) {
            return None;
        }
        if self.html {
            return write!(self.out, "{}", HtmlEscape(text)).ok();
        }
        self.out.push_str(text);
        Some(())
    }
}
