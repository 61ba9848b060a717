//! Rewrites the source of an HTML template once: links lead over the public listener, opens are seen, there is a mirror page.

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

use super::token::LinkPurpose;
use crate::{
    domain::{delivery::Tracking, tracking::TrackedLink},
    mail::{links::placeholder, template::template_tag},
};

/// Around the number of a protected tag; those of the source itself are protected as tags are.
const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';
const LONGEST_LABEL: usize = 100;
/// Of a link's text no more is looked at.
const LONGEST_TEXT_BYTES: usize = 4000;
/// The merge fields that are addresses of the public listener already.
pub const OWN_FIELDS: [&str; 2] = ["unsubscribe_url", "mirror_url"];

#[derive(Debug, Default)]
pub struct RewrittenHtml {
    pub source: String,
    pub links: Vec<TrackedLink>,
    /// Addresses that the template sets or loops over: nobody could tell afterwards where they led.
    pub untracked: Vec<String>,
}

/// Rewrites `source`, whose links lead to `base`. `fields_of` gives the variables of a piece of template, if it is one by itself.
///
/// # Errors
/// What keeps it from being tracked.
pub fn rewrite(
    source: &str,
    tracking: &Tracking,
    base: &str,
    fields_of: impl Fn(&str) -> Option<BTreeSet<String>>,
) -> Result<RewrittenHtml, String> {
    if source.contains(placeholder::NAME) {
        return Err(format!("holds {}, a name that is reserved", placeholder::NAME));
    }
    let (html, tags) = protect(source);
    let bound = bound_names(&tags);
    let rewriting =
        RefCell::new(Rewriting { tags, base, clicks: tracking.clicks, ..Rewriting::default() });
    let judge = |url: &str| judge(url, &bound, &fields_of);
    let mirror = match tracking.mirror_link.as_str() {
        "" => String::new(),
        text => {
            let text = encode_safe(text).replace('{', "&#123;");
            format!(
                "<p><a href=\"{}\">{text}</a></p>",
                rewriting.borrow_mut().url(LinkPurpose::Mirror)
            )
        }
    };
    let pixel = match tracking.opens {
        true => {
            let url = rewriting.borrow_mut().url(LinkPurpose::Open);
            format!("<img src=\"{url}\" width=\"1\" height=\"1\" alt=\"\" style=\"display:block\">")
        }
        false => String::new(),
    };
    let (begun, ended) = (Cell::new(false), Rc::new(Cell::new(false)));
    let settings = RewriteStrSettings::new()
        .with_strict(false)
        .append_element_content_handler(element!("a, area", |element| rewriting
            .borrow_mut()
            .link(element, judge)))
        .append_element_content_handler(element!("a img[alt]", |image| {
            rewriting.borrow_mut().image(&image.get_attribute("alt").unwrap_or_default());
            Ok(())
        }))
        .append_element_content_handler(text!("a", |chunk| {
            rewriting.borrow_mut().text(chunk.as_str());
            Ok(())
        }))
        .append_element_content_handler(element!("body", |body| {
            // of a template with a body in each of its branches one is left: each has its own
            begun.set(true);
            body.prepend(&mirror, ContentType::Html);
            let (ended, pixel) = (ended.clone(), pixel.clone());
            body.on_end_tag(end_tag!(move |end| {
                ended.set(true);
                end.before(&pixel, ContentType::Html);
                Ok(())
            }))
        }));
    let mut html = rewrite_str(&html, settings).map_err(|error| error.to_string())?;
    if !begun.get() {
        html.insert_str(0, &mirror);
    }
    if !ended.get() {
        html.push_str(&pixel);
    }
    Ok(rewriting.into_inner().finish(&html))
}

/// Every template tag replaced by its number, so that nothing in it is taken for HTML.
fn protect(source: &str) -> (String, Vec<String>) {
    let (mut html, mut tags) = (String::with_capacity(source.len()), Vec::new());
    let mut rest = source;
    while let Some(at) = rest.find(['{', OPEN, CLOSE]) {
        html.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match (template_tag(rest), rest.chars().next()) {
            (Some((tag, _)), _) => tag.len(),
            (None, Some('{')) => {
                html.push('{');
                rest = &rest[1..];
                continue;
            }
            (None, first) => first.map_or(0, char::len_utf8),
        };
        html.push_str(&format!("{OPEN}{}{CLOSE}", tags.len()));
        tags.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    html.push_str(rest);
    (html, tags)
}

fn put_back(html: &str, tags: &[String]) -> String {
    let mut pieces = html.split(OPEN);
    let mut source = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (number, after) = piece.split_once(CLOSE).unwrap_or((piece, ""));
        source.push_str(
            number
                .parse()
                .ok()
                .and_then(|number: usize| tags.get(number))
                .map_or("", String::as_str),
        );
        source.push_str(after);
    }
    source
}

/// Names that a tag gives a meaning of its own, somewhere in the template; rather too many.
fn bound_names(tags: &[String]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> =
        ["loop", "self", "super", "caller", "varargs", "kwargs"].map(str::to_owned).into();
    for tag in tags.iter().filter_map(|tag| tag.strip_prefix("{%")) {
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        let (keyword, rest) =
            tag.split_at(tag.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tag.len()));
        let bound = match keyword {
            "for" => rest.split_once(" in ").map_or(rest, |(names, _)| names),
            "set" => rest.split_once('=').map_or(rest, |(names, _)| names),
            "with" | "macro" | "call" | "import" | "from" => rest,
            _ => continue,
        };
        names.extend(
            bound
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
        );
    }
    names
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing to track.
    Other,
    /// To be tracked, were it known where it leads.
    Unknown,
    Plain(String),
    Merged,
}

/// What kind of link an `href` of the source is.
fn judge(
    url: &str,
    bound: &BTreeSet<String>,
    fields_of: impl Fn(&str) -> Option<BTreeSet<String>>,
) -> Kind {
    let lower = url.to_ascii_lowercase();
    let is_web = |text: &str| ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    let Some(tag) = ["{{", "{%", "{#"].iter().filter_map(|open| lower.find(open)).min() else {
        let url = decode_html_entities(url);
        return if web_address(&url).is_some() {
            Kind::Plain(url.into_owned())
        } else {
            Kind::Other
        };
    };
    let before = &lower[..tag];
    if !is_web(before) && !"https://".starts_with(before) {
        return Kind::Other;
    }
    match fields_of(url) {
        Some(fields) if OWN_FIELDS.iter().any(|own| fields.contains(*own)) => Kind::Other,
        Some(fields) if fields.is_disjoint(bound) => Kind::Merged,
        _ => Kind::Unknown,
    }
}

/// An address that a redirect may lead to, as a browser writes it.
pub fn web_address(url: &str) -> Option<String> {
    Url::parse(url.trim()).ok().filter(is_web).map(String::from)
}

/// Whether it is one of those.
pub fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

#[derive(Default)]
struct Rewriting<'a> {
    tags: Vec<String>,
    base: &'a str,
    clicks: bool,
    found: Vec<Found>,
    untracked: Vec<String>,
    /// The link whose text is being read.
    open: Option<usize>,
}

/// A link: its label is known when all is read.
struct Found {
    url: String,
    merged: bool,
    text: String,
    title: String,
    images: String,
}

type Handled = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Rewriting<'_> {
    /// An address of the public listener, with a hole.
    fn url(&mut self, purpose: LinkPurpose) -> String {
        self.tags.push(placeholder::tag(purpose));
        format!("{}{}{OPEN}{}{CLOSE}", self.base, purpose.path(), self.tags.len() - 1)
    }

    fn link(&mut self, element: &mut Element<'_, '_>, judge: impl Fn(&str) -> Kind) -> Handled {
        self.open = None;
        let untracked = element
            .get_attribute("data-track")
            .is_some_and(|track| track.trim().eq_ignore_ascii_case("false"));
        if untracked {
            element.remove_attribute("data-track");
        }
        let Some(href) = element.get_attribute("href").filter(|_| self.clicks && !untracked) else {
            return Ok(());
        };
        let source = put_back(href.trim(), &self.tags);
        let (url, merged) = match judge(&source) {
            Kind::Other => return Ok(()),
            Kind::Unknown => {
                self.untracked.push(source);
                return Ok(());
            }
            Kind::Plain(url) => (url, false),
            Kind::Merged => (source, true),
        };
        if self.found.len() >= placeholder::MOST_LINKS {
            return Err(format!("has more than {} links", placeholder::MOST_LINKS).into());
        }
        let tracked = self.url(LinkPurpose::Click(self.found.len() as u16));
        element.set_attribute("href", &tracked)?;
        let [title, alt] =
            ["title", "alt"].map(|name| element.get_attribute(name).unwrap_or_default());
        if element.tag_name() == "a" {
            self.open = Some(self.found.len());
        }
        self.found.push(Found { url, merged, text: String::new(), title, images: alt });
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if let Some(found) = self.open.and_then(|open| self.found.get_mut(open))
            && found.text.len() < LONGEST_TEXT_BYTES
        {
            found.text.push_str(text);
        }
    }

    fn image(&mut self, alt: &str) {
        if let Some(found) = self.open.and_then(|open| self.found.get_mut(open))
            && found.images.len() < LONGEST_TEXT_BYTES
        {
            found.images.extend([" ", alt]);
        }
    }

    fn finish(self, html: &str) -> RewrittenHtml {
        let label = |text: &str| {
            let text = put_back(text, &self.tags);
            let words =
                decode_html_entities(&text).split_whitespace().collect::<Vec<_>>().join(" ");
            words.chars().take(LONGEST_LABEL).collect::<String>()
        };
        let links = self.found.iter().map(|found| {
            let labels =
                [&found.text, &found.title, &found.images, &found.url].map(|text| label(text));
            let label = labels.into_iter().find(|label| !label.is_empty()).unwrap_or_default();
            TrackedLink { label, url: found.url.clone(), merged: found.merged }
        });
        RewrittenHtml {
            source: put_back(html, &self.tags),
            links: links.collect(),
            untracked: self.untracked,
        }
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
