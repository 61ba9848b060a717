//! Templates of literal text and plain merge fields, the most of them: merged without the template engine.

use std::{collections::BTreeSet, fmt::Write};

use minijinja::HtmlEscape;
use serde_json::Value as Json;

use super::fields::{Found, lookup, value_of};
use crate::{domain::recipient::Recipient, mail::body::holds_mark};

#[derive(Debug)]
pub struct Merge {
    /// Literals and the field that follows each.
    steps: Vec<(String, String)>,
    end: String,
    html: bool,
}

impl Merge {
    /// `None` if the template holds more than plain `{{ field }}`s. `html`: values are escaped.
    pub fn new(source: &str, used: &BTreeSet<String>, html: bool) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = source;
        while let Some((literal, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}")?;
            let name = name.trim_ascii();
            // what is used is a name and not, say, `true`
            if !used.contains(name) {
                return None;
            }
            steps.push((literal.to_owned(), name.to_owned()));
            rest = after;
        }
        let literals = steps.iter().map(|(literal, _)| literal.as_str()).chain([rest]);
        let plain = literals.into_iter().all(|literal| !literal.contains("{%") && !literal.contains("{#"));
        plain.then(|| Self { steps, end: rest.to_owned(), html })
    }

    /// `None` if it takes the engine: a field is missing or is no text, number or truth value.
    pub fn render(&self, recipient: &Recipient) -> Option<String> {
        let literals: usize = self.steps.iter().map(|(literal, _)| literal.len() + 24).sum();
        let mut out = String::with_capacity(literals + self.end.len());
        for (literal, name) in &self.steps {
            out.push_str(literal);
            let text = match lookup(recipient, name)? {
                Found::Email(text) => text,
                Found::Field(Json::String(text)) => text,
                Found::Field(value @ (Json::Number(_) | Json::Bool(_))) => {
                    write!(out, "{}", value_of(value)?).ok()?;
                    continue;
                }
                Found::Field(_) => return None,
            };
            if holds_mark(text) {
                return None;
            }
            if self.html {
                write!(out, "{}", HtmlEscape(text)).ok()?;
            } else {
                out.push_str(text);
            }
        }
        out.push_str(&self.end);
        Some(out)
    }
}
