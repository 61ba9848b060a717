//! Rewrites an HTML template once, so that clicks and opens of its messages can be tracked.
//!
//! Links lead to the public listener. The open pixel and the link to the mirror page are added.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
};

use html_escape::{decode_html_entities, encode_safe};
use lol_html::{
    RewriteStrSettings, element, end_tag,
    html_content::{ContentType, Element},
    rewrite_str, text,
};
use url::Url;

use super::{placeholder, protected_tags::ProtectedTags, token::LinkPurpose};
use crate::domain::{delivery::Tracking, tracking::TrackedLink};

/// The longest label of a link, in characters.
const MAX_LABEL_CHARS: usize = 100;
/// How much of a link's text is read for its label, in bytes.
const MAX_TEXT_BYTES: usize = 4000;
/// The merge fields that are addresses of the public listener already.
const TRACKING_FIELDS: [&str; 2] = ["unsubscribe_url", "mirror_url"];

/// An HTML template after its links were rewritten.
#[derive(Debug, Default)]
pub struct RewrittenHtml {
    /// The source, with placeholders for tokens.
    pub source: String,
    /// The tracked links by their numbers.
    pub links: Vec<TrackedLink>,
    /// The addresses of links that cannot be tracked.
    ///
    /// Each depends on a value that the template itself makes, or is no template by itself. So the
    /// target of a click could not be found afterwards.
    pub untracked: Vec<String>,
}

/// Rewrites the HTML template `source`. `base` is the address of the public listener.
///
/// `fields_of` gives the variables of a piece of template, or `None` if it is not a template by
/// itself.
///
/// # Errors
///
/// The HTML cannot be parsed, uses a reserved name, or has too many links.
pub fn rewrite(
    source: &str,
    tracking: &Tracking,
    base: &str,
    fields_of: impl Fn(&str) -> Option<BTreeSet<String>>,
) -> Result<RewrittenHtml, String> {
    if source.contains(placeholder::NAME) {
        return Err(format!("uses the reserved name {}", placeholder::NAME));
    }
    let (html, tags) = ProtectedTags::protect(source);
    let bound = tags.bound_names();
    let mut rewriter = Rewriter { tags, base, clicks: tracking.clicks, ..Rewriter::default() };
    let mirror = rewriter.mirror_link(&tracking.mirror_link);
    let pixel = if tracking.opens { rewriter.pixel() } else { String::new() };
    let rewriter = RefCell::new(rewriter);
    let classify = |url: &str| classify(url, &bound, &fields_of);
    let (body_found, end_found) = (Cell::new(false), Rc::new(Cell::new(false)));
    let settings = RewriteStrSettings::new()
        .with_strict(false)
        .append_element_content_handler(element!("a, area", |element| rewriter
            .borrow_mut()
            .link(element, classify)))
        .append_element_content_handler(element!("a img[alt]", |image| {
            rewriter.borrow_mut().image(&image.get_attribute("alt").unwrap_or_default());
            Ok(())
        }))
        .append_element_content_handler(text!("a", |chunk| {
            rewriter.borrow_mut().text(chunk.as_str());
            Ok(())
        }))
        .append_element_content_handler(element!("body", |body| {
            // A template may have a body in each of several branches. A message has only one of
            // them, so each gets its own pixel and link.
            body_found.set(true);
            body.prepend(&mirror, ContentType::Html);
            let (end_found, pixel) = (end_found.clone(), pixel.clone());
            body.on_end_tag(end_tag!(move |end| {
                end_found.set(true);
                end.before(&pixel, ContentType::Html);
                Ok(())
            }))
        }));
    let mut html = rewrite_str(&html, settings).map_err(|error| error.to_string())?;
    if !body_found.get() {
        html.insert_str(0, &mirror);
    }
    if !end_found.get() {
        html.push_str(&pixel);
    }
    Ok(rewriter.into_inner().finish(&html))
}

/// What kind of link an `href` is.
#[derive(Debug, PartialEq, Eq)]
enum LinkKind {
    /// Not a link to the web, or a link to the public listener already: it stays as it is.
    Other,
    /// A link that cannot be tracked: its target depends on a value that the template makes, or is
    /// no template by itself.
    Untrackable,
    /// A link with the same target in every message.
    Plain(String),
    /// A link whose target depends on merge fields.
    Merged,
}

fn classify(
    url: &str,
    bound: &BTreeSet<String>,
    fields_of: impl Fn(&str) -> Option<BTreeSet<String>>,
) -> LinkKind {
    let lower = url.to_ascii_lowercase();
    let is_web = |text: &str| ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    let Some(tag) = ["{{", "{%", "{#"].iter().filter_map(|open| lower.find(open)).min() else {
        let url = decode_html_entities(url);
        return if web_address(&url).is_some() {
            LinkKind::Plain(url.into_owned())
        } else {
            LinkKind::Other
        };
    };
    let before = &lower[..tag];
    if !is_web(before) && !"https://".starts_with(before) {
        return LinkKind::Other;
    }
    match fields_of(url) {
        Some(fields) if TRACKING_FIELDS.iter().any(|name| fields.contains(*name)) => {
            LinkKind::Other
        }
        Some(fields) if fields.is_disjoint(bound) => LinkKind::Merged,
        _ => LinkKind::Untrackable,
    }
}

/// A web address as a browser writes it; `None` if the text is not a URL with `http` or `https`.
pub fn web_address(url: &str) -> Option<String> {
    Url::parse(url.trim()).ok().filter(is_web).map(String::from)
}

/// Whether a URL is `http` or `https`, so that a redirect may lead to it.
pub fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

#[derive(Default)]
struct Rewriter<'a> {
    tags: ProtectedTags,
    base: &'a str,
    clicks: bool,
    found: Vec<FoundLink>,
    untracked: Vec<String>,
    /// The number of the link whose text is being read.
    open: Option<usize>,
}

/// A tracked link, with all texts that may become its label.
struct FoundLink {
    url: String,
    merged: bool,
    text: String,
    title: String,
    images: String,
}

type Handled = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Rewriter<'_> {
    /// The link to the mirror page; empty if `text` is.
    fn mirror_link(&mut self, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        let text = encode_safe(text).replace('{', "&#123;");
        format!("<p><a href=\"{}\">{text}</a></p>", self.url(LinkPurpose::Mirror))
    }

    fn pixel(&mut self) -> String {
        let url = self.url(LinkPurpose::Open);
        format!("<img src=\"{url}\" width=\"1\" height=\"1\" alt=\"\" style=\"display:block\">")
    }

    /// An address of the public listener, with a placeholder.
    fn url(&mut self, purpose: LinkPurpose) -> String {
        let token = self.tags.add(placeholder::tag(purpose));
        format!("{}{}{token}", self.base, purpose.path())
    }

    fn link(
        &mut self,
        element: &mut Element<'_, '_>,
        classify: impl Fn(&str) -> LinkKind,
    ) -> Handled {
        self.open = None;
        let opted_out = element
            .get_attribute("data-track")
            .is_some_and(|track| track.trim().eq_ignore_ascii_case("false"));
        if opted_out {
            element.remove_attribute("data-track");
        }
        let Some(href) = element.get_attribute("href").filter(|_| self.clicks && !opted_out) else {
            return Ok(());
        };
        let source = self.tags.restore(href.trim());
        let (url, merged) = match classify(&source) {
            LinkKind::Other => return Ok(()),
            LinkKind::Untrackable => {
                self.untracked.push(source);
                return Ok(());
            }
            LinkKind::Plain(url) => (url, false),
            LinkKind::Merged => (source, true),
        };
        if self.found.len() >= placeholder::MAX_LINKS {
            return Err(format!("has more than {} links", placeholder::MAX_LINKS).into());
        }
        let tracked = self.url(LinkPurpose::Click(self.found.len() as u16));
        element.set_attribute("href", &tracked)?;
        let [title, alt] =
            ["title", "alt"].map(|name| element.get_attribute(name).unwrap_or_default());
        if element.tag_name() == "a" {
            self.open = Some(self.found.len());
        }
        self.found.push(FoundLink { url, merged, text: String::new(), title, images: alt });
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if let Some(found) = self.open.and_then(|open| self.found.get_mut(open))
            && found.text.len() < MAX_TEXT_BYTES
        {
            found.text.push_str(text);
        }
    }

    fn image(&mut self, alt: &str) {
        if let Some(found) = self.open.and_then(|open| self.found.get_mut(open))
            && found.images.len() < MAX_TEXT_BYTES
        {
            found.images.extend([" ", alt]);
        }
    }

    fn finish(self, html: &str) -> RewrittenHtml {
        let label = |text: &str| {
            let text = self.tags.restore(text);
            let words =
                decode_html_entities(&text).split_whitespace().collect::<Vec<_>>().join(" ");
            words.chars().take(MAX_LABEL_CHARS).collect::<String>()
        };
        let links = self.found.iter().map(|found| {
            let labels =
                [&found.text, &found.title, &found.images, &found.url].map(|text| label(text));
            let label = labels.into_iter().find(|label| !label.is_empty()).unwrap_or_default();
            TrackedLink { label, url: found.url.clone(), merged: found.merged }
        });
        RewrittenHtml {
            source: self.tags.restore(html),
            links: links.collect(),
            untracked: self.untracked,
        }
    }
}
