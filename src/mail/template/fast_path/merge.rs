//! Merges simple templates without the engine: literal text, merge fields, conditions and loops.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::atomic::{AtomicUsize, Ordering},
};

use minijinja::HtmlEscape;
use serde_json::Value as Json;

use super::parser::{FieldPath, LoopOver, MergeStep, NUMBERS, PathRoot, parse};
use crate::mail::{
    compose::holds_mark,
    template::fields::{FieldValues, FoundField, lookup, value_of},
};

/// The most bytes that are reserved before a merge.
///
/// The bound keeps one recipient with a very long list from making all merges reserve that much.
const RESERVE_LIMIT_BYTES: usize = 64 * 1024;

/// A simple template, ready to be merged.
#[derive(Debug)]
pub struct CompiledMerge {
    steps: Vec<MergeStep>,
    /// Values are escaped for HTML.
    html: bool,
    /// How many bytes the next merge reserves: the longest result so far, up to a limit.
    reserve_bytes: AtomicUsize,
}

/// The bounds of one merge. The engine has the same.
#[derive(Debug, Clone, Copy)]
pub struct MergeLimits {
    /// Steps and rounds of loops.
    pub steps: u64,
    /// Bytes of the result.
    pub bytes: usize,
}

impl CompiledMerge {
    /// Compiles a template whose merge fields are `used`. With `html`, values are escaped.
    ///
    /// `None` if the template needs the engine.
    pub fn new(source: &str, used: &BTreeSet<String>, html: bool) -> Option<Self> {
        Some(Self {
            steps: parse(source, used)?,
            html,
            reserve_bytes: AtomicUsize::new(source.len().min(RESERVE_LIMIT_BYTES)),
        })
    }

    /// Whether the template has a loop, so that a message may take long.
    pub fn has_loop(&self) -> bool {
        has_loop(&self.steps)
    }

    /// The merged text. `None` if the engine must decide.
    ///
    /// The engine decides if a field is missing, or if a written value holds a mark or is a list or
    /// an object. It also decides if a loop goes over no list, or if a limit is reached.
    pub fn render(&self, values: &FieldValues<'_>, limits: MergeLimits) -> Option<String> {
        let longest = self.reserve_bytes.load(Ordering::Relaxed);
        let out = String::with_capacity(longest);
        let mut merging = Merging { values, html: self.html, items: Vec::new(), out, limits };
        merging.run(&self.steps)?;
        if (longest..RESERVE_LIMIT_BYTES).contains(&merging.out.len()) {
            self.reserve_bytes.fetch_max(merging.out.len(), Ordering::Relaxed);
        }
        Some(merging.out)
    }
}

fn has_loop(steps: &[MergeStep]) -> bool {
    steps.iter().any(|step| match step {
        MergeStep::For { .. } => true,
        MergeStep::If { then, otherwise, .. } => has_loop(then) || has_loop(otherwise),
        MergeStep::Text(_) | MergeStep::Field(_) | MergeStep::Token(_) => false,
    })
}

struct Merging<'a> {
    values: &'a FieldValues<'a>,
    html: bool,
    /// The current item of each open loop, the outermost first.
    items: Vec<&'a Json>,
    out: String,
    limits: MergeLimits,
}

impl<'a> Merging<'a> {
    fn run(&mut self, steps: &'a [MergeStep]) -> Option<()> {
        for step in steps {
            self.limits.steps = self.limits.steps.checked_sub(1)?;
            match step {
                MergeStep::Text(text) => self.out.push_str(text),
                MergeStep::Field(path) => self.write(path)?,
                MergeStep::Token(purpose) => self.values.signer()?.write(&mut self.out, *purpose),
                MergeStep::If { test, negated, then, otherwise } => {
                    let branch = if self.is_true(test)? != *negated { then } else { otherwise };
                    self.run(branch)?;
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
            LoopOver::Numbers(length) => NUMBERS.get(..*length)?,
            LoopOver::Path(path) => match self.find(path)? {
                FoundField::Field(Json::Array(items)) => items.as_slice(),
                _ => return None,
            },
        };
        if items.is_empty() {
            return self.run(otherwise);
        }
        for item in items {
            self.limits.steps = self.limits.steps.checked_sub(1)?;
            self.items.push(item);
            self.run(body)?;
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
