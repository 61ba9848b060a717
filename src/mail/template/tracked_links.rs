//! What a template knows of its tracked links, and the message as its mirror page shows it.

use std::{cell::LazyCell, collections::BTreeSet};

use html_escape::{decode_html_entities, encode_text};
use minijinja::Environment;

use super::{
    compile::LIMITS,
    fields::FieldValues,
    render::{MessageStamp, RenderError, Template, TemplateProblem, describe},
};
use crate::{
    domain::{audience::Recipient, delivery::Tracking, tracking::TrackedLink},
    mail::{
        links::{RewrittenHtml, link_check, rewrite, web_address},
        template::{fast_path::CompiledMerge, fields},
    },
};

/// The name of the HTML template as it was given, where "html" is the one with tracked links.
pub(super) const ORIGINAL: &str = "original";

#[derive(Debug)]
pub(super) struct TrackedLinks {
    /// Of the public listener, without a character that HTML, a template or a header would have to escape.
    pub base: String,
    pub links: Vec<TrackedLink>,
    /// The quick way to the addresses that differ between recipients, by the numbers of their links.
    targets: Vec<Option<CompiledMerge>>,
    pub untracked: Vec<String>,
}

impl TrackedLinks {
    /// Puts the rewritten HTML template in place of the original. `None` if nothing is tracked.
    pub fn new(
        environment: &mut Environment<'static>,
        tracking: &Tracking,
    ) -> Result<Option<Self>, TemplateProblem> {
        if tracking.url.is_empty() {
            return Ok(None);
        }
        let base = tracking.url.chars().fold(String::new(), |mut base, c| {
            match c {
                '"' | '\'' | '<' | '>' | '&' | '{' | '}' | ' ' => {
                    base.push_str(&format!("%{:02X}", u32::from(c)))
                }
                c => base.push(c),
            }
            base
        });
        let Some(source) =
            environment.get_template("html").ok().map(|html| html.source().to_owned())
        else {
            return Ok(Some(Self {
                base,
                links: Vec::new(),
                targets: Vec::new(),
                untracked: Vec::new(),
            }));
        };
        let fields_of = |piece: &str| variables(environment, piece);
        let problem = |message| TemplateProblem { part: "html", line: None, message };
        let rewritten = rewrite(&source, tracking, &base, fields_of).map_err(problem)?;
        let RewrittenHtml { source: html, links, untracked } = rewritten;
        let target = |link: &TrackedLink| match link.merged {
            true => CompiledMerge::new(&link.url, &variables(environment, &link.url)?, true),
            false => None,
        };
        let targets = links.iter().map(target).collect();
        for (name, source) in [(ORIGINAL, source), ("html", html)] {
            let added = environment.add_template_owned(name, source);
            added.map_err(|error| problem(format!("cannot be tracked: {}", describe(&error))))?;
        }
        Ok(Some(Self { base, links, targets, untracked }))
    }
}

/// `None` if it is no template.
fn variables(environment: &Environment<'static>, source: &str) -> Option<BTreeSet<String>> {
    let template = environment.template_from_named_str("html", source).ok()?;
    Some(template.undeclared_variables(false).into_iter().collect())
}

/// An address as a mail program reads it.
pub(super) fn as_read(url: &str) -> String {
    decode_html_entities(url).trim().to_owned()
}

impl Template {
    /// The tracked links by their numbers.
    pub fn links(&self) -> &[TrackedLink] {
        self.tracked.as_ref().map_or(&[], |tracked| &tracked.links)
    }

    /// The addresses of links that are not tracked because the template itself makes what they depend on, as in a loop.
    pub fn untracked(&self) -> &[String] {
        self.tracked.as_ref().map_or(&[], |tracked| &tracked.untracked)
    }

    /// Where a tracked link of this recipient leads to, as a mail program would read it: `http` or `https`, ASCII.
    pub fn target(&self, number: u16, recipient: &Recipient) -> Option<String> {
        let link = self.links().get(usize::from(number))?;
        if !link.merged {
            return web_address(&link.url);
        }
        let values = FieldValues { recipient, own: None };
        let url = self
            .merged(usize::from(number), &values)
            .or_else(|| self.merged_by_engine(link, &values))?;
        web_address(&as_read(&url))
    }

    pub(super) fn merged(&self, number: usize, values: &FieldValues<'_>) -> Option<String> {
        self.tracked.as_ref()?.targets.get(number)?.as_ref()?.render(values, LIMITS)
    }

    pub(super) fn merged_by_engine(
        &self,
        link: &TrackedLink,
        values: &FieldValues<'_>,
    ) -> Option<String> {
        let template = self.environment.template_from_named_str("html", &link.url).ok()?;
        template.render(fields::context(&self.used, values)).ok()
    }

    /// What is wrong with the links of one recipient's HTML part, as they were given.
    pub fn link_faults(&self, recipient: &Recipient, stamp: &MessageStamp) -> Vec<String> {
        let Ok(values) = self.values(recipient, stamp) else { return Vec::new() };
        let original = if self.tracked.is_some() { ORIGINAL } else { "html" };
        let html =
            self.whole(original, &values, &fields::context(&self.used, &values)).ok().flatten();
        html.map(|html| link_check::faults(&html)).unwrap_or_default()
    }

    /// The HTML as the recipient got it; of a message without any, its text.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn mirror(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
    ) -> Result<String, RenderError> {
        let values = self.values(recipient, stamp)?;
        let context = LazyCell::new(|| fields::context(&self.used, &values));
        let [_, html, text] = &self.parts;
        if let Some(html) = self.body(html, &values, &context)? {
            return Ok(html.text());
        }
        let text = self.body(text, &values, &context)?.map_or_else(String::new, |body| body.text());
        Ok(format!("<pre>{}</pre>", encode_text(&text)))
    }
}
