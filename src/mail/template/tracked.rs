//! What a template knows of its tracked links, and the message as its mirror page shows it.

use std::{cell::LazyCell, collections::BTreeSet};

use html_escape::{decode_html_entities, encode_text};
use minijinja::Environment;

use super::{Problem, RenderError, Stamp, Template, compile::LIMITS, describe, fields, fields::Values, merge::Merge};
use crate::{
    domain::{recipient::Recipient, settings::Tracking, tracking::Link},
    mail::{
        links,
        rewrite::{Rewritten, rewrite, web_address},
    },
};

/// The name of the HTML template as it was given, where "html" is the one with tracked links.
pub(super) const ORIGINAL: &str = "original";

#[derive(Debug)]
pub(super) struct Tracked {
    /// Of the public listener, without a character that HTML, a template or a header would have to escape.
    pub base: String,
    pub links: Vec<Link>,
    /// The quick way to the addresses that differ between recipients, by the numbers of their links.
    targets: Vec<Option<Merge>>,
    pub untracked: Vec<String>,
}

impl Tracked {
    /// Puts the rewritten HTML template in place of the original. `None` if nothing is tracked.
    pub fn new(environment: &mut Environment<'static>, tracking: &Tracking) -> Result<Option<Self>, Problem> {
        if tracking.url.is_empty() {
            return Ok(None);
        }
        let base = tracking.url.chars().fold(String::new(), |mut base, c| {
            match c {
                '"' | '\'' | '<' | '>' | '&' | '{' | '}' | ' ' => base.push_str(&format!("%{:02X}", u32::from(c))),
                c => base.push(c),
            }
            base
        });
        let Some(source) = environment.get_template("html").ok().map(|html| html.source().to_owned()) else {
            return Ok(Some(Self { base, links: Vec::new(), targets: Vec::new(), untracked: Vec::new() }));
        };
        let fields_of = |piece: &str| variables(environment, piece);
        let problem = |message| Problem { part: "html", line: None, message };
        let rewritten = rewrite(&source, tracking, &base, fields_of).map_err(problem)?;
        let Rewritten { source: html, links, untracked } = rewritten;
        let target = |link: &Link| match link.merged {
            true => Merge::new(&link.url, &variables(environment, &link.url)?, true),
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
    pub fn links(&self) -> &[Link] {
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
        let values = Values { recipient, own: None };
        let url = self.merged(usize::from(number), &values).or_else(|| self.merged_by_engine(link, &values))?;
        web_address(&as_read(&url))
    }

    pub(super) fn merged(&self, number: usize, values: &Values<'_>) -> Option<String> {
        self.tracked.as_ref()?.targets.get(number)?.as_ref()?.render(values, LIMITS)
    }

    pub(super) fn merged_by_engine(&self, link: &Link, values: &Values<'_>) -> Option<String> {
        let template = self.environment.template_from_named_str("html", &link.url).ok()?;
        template.render(fields::context(&self.used, values)).ok()
    }

    /// What is wrong with the links of one recipient's HTML part, as they were given.
    pub fn link_faults(&self, recipient: &Recipient, stamp: &Stamp) -> Vec<String> {
        let Ok(values) = self.values(recipient, stamp) else { return Vec::new() };
        let original = if self.tracked.is_some() { ORIGINAL } else { "html" };
        let html = self.whole(original, &values, &fields::context(&self.used, &values)).ok().flatten();
        html.map(|html| links::faults(&html)).unwrap_or_default()
    }

    /// The HTML as the recipient got it; of a message without any, its text.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn mirror(&self, recipient: &Recipient, stamp: &Stamp) -> Result<String, RenderError> {
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
