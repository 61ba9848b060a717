//! Templates of literal text, merge fields, and conditions and loops over these, the most of them: merged without the engine.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::atomic::{AtomicUsize, Ordering},
};

use minijinja::HtmlEscape;
use serde_json::Value as Json;

use super::parser::{FieldPath, LoopOver, MergeStep, PathRoot, read};
use crate::mail::{
    compose::holds_mark,
    template::{FieldValues, FoundField, lookup, value_of},
};

/// No more room is made beforehand: one recipient with a very long list is not to make it for all.
const ROOM_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct CompiledMerge {
    steps: Vec<MergeStep>,
    /// Values are escaped.
    html: bool,
    /// The longest that it came to, within reason, so that the next one finds room.
    bytes: AtomicUsize,
}

/// What the engine would not do more of, either.
#[derive(Debug, Clone, Copy)]
pub struct MergeLimits {
    pub steps: u64,
    pub bytes: usize,
}

impl CompiledMerge {
    /// `None` if the template holds anything else.
    pub fn new(source: &str, used: &BTreeSet<String>, html: bool) -> Option<Self> {
        Some(Self {
            steps: read(source, used)?,
            html,
            bytes: AtomicUsize::new(source.len().min(ROOM_BYTES)),
        })
    }

    /// `None` if it takes the engine: a field is missing or no text, number or truth value, or a limit is reached.
    pub fn render(&self, values: &FieldValues<'_>, limits: MergeLimits) -> Option<String> {
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
    values: &'a FieldValues<'a>,
    html: bool,
    /// Where the loops are that are under way, the outermost first.
    items: Vec<&'a Json>,
    out: String,
    limits: MergeLimits,
}

impl<'a> Merging<'a> {
    fn go(&mut self, steps: &'a [MergeStep]) -> Option<()> {
        for step in steps {
            self.limits.steps = self.limits.steps.checked_sub(1)?;
            match step {
                MergeStep::Text(text) => self.out.push_str(text),
                MergeStep::Field(path) => self.write(path)?,
                MergeStep::Token(purpose) => self.values.signer()?.write(&mut self.out, *purpose),
                MergeStep::If { test, negated, then, otherwise } => {
                    let branch = if self.is_true(test)? != *negated { then } else { otherwise };
                    self.go(branch)?;
                }
                MergeStep::For { over, body, otherwise } => self.repeat(over, body, otherwise)?,
            }
            if self.out.len() > self.limits.bytes {
                return None;
            }
        }
        Some(())
    }

    fn repeat(
        &mut self,
        over: &'a LoopOver,
        body: &'a [MergeStep],
        otherwise: &'a [MergeStep],
    ) -> Option<()> {
        let items = match over {
            LoopOver::Numbers(numbers) => numbers,
            LoopOver::Path(path) => match self.find(path)? {
                FoundField::Field(Json::Array(items)) => items,
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

    fn find(&self, path: &FieldPath) -> Option<FoundField<'a>> {
        let mut found = match &path.root {
            PathRoot::Item(depth) => FoundField::Field(self.items.get(*depth)?),
            PathRoot::Field(name) => lookup(self.values, name)?,
        };
        for attribute in &path.attributes {
            found = match found {
                FoundField::Field(Json::Object(fields)) => {
                    FoundField::Field(fields.get(attribute)?)
                }
                _ => return None,
            };
        }
        Some(found)
    }

    fn is_true(&self, path: &FieldPath) -> Option<bool> {
        Some(match self.find(path)? {
            FoundField::Email(text) | FoundField::Url(text) => !text.is_empty(),
            FoundField::Field(Json::String(text)) => !text.is_empty(),
            FoundField::Field(value) => value_of(value)?.is_true(),
        })
    }

    fn write(&mut self, path: &FieldPath) -> Option<()> {
        let text = match self.find(path)? {
            FoundField::Email(text) => text,
            FoundField::Url(url) => {
                self.out.push_str(url);
                return Some(());
            }
            FoundField::Field(Json::String(text)) => text,
            FoundField::Field(value @ (Json::Number(_) | Json::Bool(_))) => {
                return write!(self.out, "{}", value_of(value)?).ok();
            }
            FoundField::Field(_) => return None,
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
