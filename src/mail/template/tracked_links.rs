//! The tracked links of a template, and the addresses that they lead to.

use std::collections::BTreeSet;

use minijinja::{Environment, Error, Value};

use super::{
    fast_path::CompiledMerge,
    fields::FieldValues,
    limits::{LINK_FUEL, LINK_LIMITS, MOST_MERGED_LINKS},
    template_problem::{TemplateProblem, describe},
};
use crate::{
    domain::{delivery::Tracking, tracking::TrackedLink},
    mail::links::{RewrittenHtml, rewrite},
};

/// The name of the HTML template as it was given. The one named "html" has tracked links.
pub const ORIGINAL: &str = "original";

/// The tracked links of one template.
#[derive(Debug)]
pub struct TrackedLinks {
    /// The address of the public listener.
    ///
    /// It has no character that HTML, a template or a header would have to escape.
    pub base: String,
    /// The links by their numbers.
    pub links: Vec<TrackedLink>,
    /// The fast path to the targets that differ between recipients, by the numbers of the links.
    merged_targets: Vec<Option<CompiledMerge>>,
    /// The addresses of links that cannot be tracked.
    pub untracked: Vec<String>,
    /// Makes the targets that need the engine.
    environment: Environment<'static>,
}

impl TrackedLinks {
    /// Puts the rewritten HTML template in place of the original. `None` if nothing is tracked.
    ///
    /// # Errors
    ///
    /// The HTML template cannot be rewritten, or has too many links with merge fields.
    pub fn new(
        environment: &mut Environment<'static>,
        tracking: &Tracking,
    ) -> Result<Option<Self>, TemplateProblem> {
        if tracking.url.is_empty() {
            return Ok(None);
        }
        let base = escaped(&tracking.url);
        let mut links_only = environment.clone();
        links_only.set_fuel(Some(LINK_FUEL));
        links_only.clear_templates();
        let Some(source) =
            environment.get_template("html").ok().map(|html| html.source().to_owned())
        else {
            return Ok(Some(Self {
                base,
                links: Vec::new(),
                merged_targets: Vec::new(),
                untracked: Vec::new(),
                environment: links_only,
            }));
        };
        let fields_of = |piece: &str| variables(environment, piece);
        let problem = |message| TemplateProblem { part: "html", line: None, message };
        let rewritten = rewrite(&source, tracking, &base, fields_of).map_err(problem)?;
        let RewrittenHtml { source: html, links, untracked } = rewritten;
        if links.iter().filter(|link| link.merged).count() > MOST_MERGED_LINKS {
            let message = format!("has more than {MOST_MERGED_LINKS} links with merge fields");
            return Err(problem(message));
        }
        let target = |link: &TrackedLink| match link.merged {
            true => CompiledMerge::new(&link.url, &variables(environment, &link.url)?, true),
            false => None,
        };
        let merged_targets = links.iter().map(target).collect();
        for (name, source) in [(ORIGINAL, source), ("html", html)] {
            let added = environment.add_template_owned(name, source);
            added.map_err(|error| problem(format!("cannot be tracked: {}", describe(&error))))?;
        }
        Ok(Some(Self { base, links, merged_targets, untracked, environment: links_only }))
    }

    /// The target of a merged link by the fast path; `None` if it needs the engine.
    pub fn merged_target(&self, number: usize, values: &FieldValues<'_>) -> Option<String> {
        self.merged_targets.get(number)?.as_ref()?.render(values, LINK_LIMITS)
    }

    /// The target of a merged link by the engine.
    ///
    /// # Errors
    ///
    /// A field is missing, or the link takes too long.
    pub fn merged_target_by_engine(
        &self,
        link: &TrackedLink,
        context: Value,
    ) -> Result<String, Error> {
        self.environment.template_from_named_str("html", &link.url)?.render(context)
    }
}

fn escaped(url: &str) -> String {
    url.chars().fold(String::new(), |mut base, c| {
        match c {
            '"' | '\'' | '<' | '>' | '&' | '{' | '}' | ' ' => {
                base.push_str(&format!("%{:02X}", u32::from(c)))
            }
            c => base.push(c),
        }
        base
    })
}

/// The variables of a piece of template; `None` if it is not a template by itself.
fn variables(environment: &Environment<'static>, source: &str) -> Option<BTreeSet<String>> {
    let template = environment.template_from_named_str("html", source).ok()?;
    Some(template.undeclared_variables(false).into_iter().collect())
}
