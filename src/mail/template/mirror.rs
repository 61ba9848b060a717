//! The links of a recipient's message, where they lead, and its mirror page.

use std::cell::LazyCell;

use html_escape::{decode_html_entities, encode_text};
use minijinja::Error;

use super::{
    fields::{self, FieldValues},
    render::Template,
    template_problem::RenderError,
    tracked_links::ORIGINAL,
};
use crate::{
    domain::{audience::Recipient, tracking::TrackedLink},
    mail::{
        compose::MessageStamp,
        links::{link_check, web_address},
    },
};

impl Template {
    /// The tracked links by their numbers.
    pub fn links(&self) -> &[TrackedLink] {
        self.tracked.as_ref().map_or(&[], |tracked| &tracked.links)
    }

    /// The addresses of links that cannot be tracked.
    ///
    /// Each depends on a value that the template itself makes, for example in a loop, or is no
    /// template by itself.
    pub fn untracked(&self) -> &[String] {
        self.tracked.as_ref().map_or(&[], |tracked| &tracked.untracked)
    }

    /// The target of a tracked link for this recipient: `http` or `https`, in ASCII.
    ///
    /// It is read as a mail program reads it. `None` if there is no such link or web address.
    /// Also `None` if a field is missing, or if the link takes too long.
    pub fn target(&self, number: u16, recipient: &Recipient) -> Option<String> {
        let link = self.links().get(usize::from(number))?;
        if !link.merged {
            return web_address(&link.url);
        }
        let values = FieldValues { recipient, tracking: None };
        let url = self
            .merged_target(usize::from(number), &values)
            .or_else(|| self.merged_target_by_engine(link, &values)?.ok())?;
        web_address(&as_mail_program_reads(&url))
    }

    /// The target of a merged link by the fast path; `None` if it needs the engine.
    pub(super) fn merged_target(&self, number: usize, values: &FieldValues<'_>) -> Option<String> {
        self.tracked.as_ref()?.merged_target(number, values)
    }

    /// The target of a merged link by the engine; `None` if nothing is tracked.
    ///
    /// The inner result is an error if a field is missing, or if the link takes too long.
    pub(super) fn merged_target_by_engine(
        &self,
        link: &TrackedLink,
        values: &FieldValues<'_>,
    ) -> Option<Result<String, Error>> {
        let context = fields::context(&self.used, values);
        Some(self.tracked.as_ref()?.merged_target_by_engine(link, context))
    }

    /// The links of one recipient's HTML part that a reader cannot follow, each with the reason.
    ///
    /// The links are those of the original template. At most ten are listed.
    pub fn link_faults(&self, recipient: &Recipient, stamp: &MessageStamp) -> Vec<String> {
        let Ok(values) = self.values(recipient, stamp) else { return Vec::new() };
        let original = if self.tracked.is_some() { ORIGINAL } else { "html" };
        let context = fields::context(&self.used, &values);
        let html = self.render_by_engine(original, &values, &context).ok().flatten();
        html.map(|html| link_check::faults(&html)).unwrap_or_default()
    }

    /// The mirror page: the HTML as the recipient got it, or the text of a message without HTML.
    ///
    /// # Errors
    ///
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

/// An address in HTML as a mail program reads it.
pub(super) fn as_mail_program_reads(url: &str) -> String {
    decode_html_entities(url).trim().to_owned()
}
