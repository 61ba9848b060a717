//! Whether a recipient's message can be made, without making all of it.

use url::Url;

use super::{
    RenderError, Stamp, Template, fields,
    fields::Values,
    tracked::{ORIGINAL, as_read},
};
use crate::{domain::recipient::Recipient, mail::rewrite::is_web};

/// No transfer encoding, and no encoded words, make more of a byte: `=C3` and its share of soft line breaks.
const MOST_OF_A_BYTE: usize = 4;
/// Headers and boundaries beside head, subject and the address of the opt-out.
const OTHER_BYTES: usize = 2048;

impl Template {
    /// Whether [`Template::render`] makes the message and [`Template::target`] its links.
    ///
    /// # Errors
    /// As [`Template::render`]; of a link: a missing field, an address that is not of the web.
    pub fn try_message(&self, recipient: &Recipient, stamp: &Stamp) -> Result<(), RenderError> {
        if self.most_bytes(recipient, stamp)? > self.limit_bytes {
            self.render(recipient, stamp)?;
        }
        self.try_links(recipient, stamp)
    }

    /// More than the message has, however it is encoded.
    pub(super) fn most_bytes(&self, recipient: &Recipient, stamp: &Stamp) -> Result<usize, RenderError> {
        let values = self.values(recipient, stamp)?;
        let draft = self.draft(&recipient.email, &values)?;
        let bytes = draft.subject.len() + draft.text.iter().chain(&draft.html).map(|body| body.bytes).sum::<usize>();
        let opt_out = values.own.as_ref().map_or(0, |own| own.unsubscribe_url.len());
        Ok(self.head.len() + OTHER_BYTES + opt_out + MOST_OF_A_BYTE * bytes)
    }

    /// What the tracked message does not show: whether the links that differ between recipients can be made for this one.
    ///
    /// # Errors
    /// A missing field, an address that is not of the web.
    pub(super) fn try_links(&self, recipient: &Recipient, stamp: &Stamp) -> Result<(), RenderError> {
        let values = Values { recipient, own: None };
        let mut in_place = false;
        for (number, link) in self.links().iter().enumerate().filter(|(_, link)| link.merged) {
            let url = match self.merged(number, &values) {
                Some(url) => Some(url),
                None => {
                    if !in_place {
                        // what is missing where it stands: in a condition that does not hold it may be
                        let values = self.values(recipient, stamp)?;
                        self.whole(ORIGINAL, &values, &fields::context(&self.used, &values))?;
                        in_place = true;
                    }
                    self.merged_by_engine(link, &values)
                }
            };
            // most are told at sight; one that is no URL at all may be within a condition
            let at_sight = |url: &String| url.starts_with("https://") || url.starts_with("http://");
            let is_elsewhere = |url: &String| !at_sight(url) && Url::parse(url).is_ok_and(|url| !is_web(&url));
            if let Some(url) = url.map(|url| as_read(&url)).filter(is_elsewhere) {
                let message =
                    format!("the link {:?} leads to {url:?}: what is no web page needs data-track=\"false\"", link.label);
                return Err(RenderError { part: "html", field: None, message });
            }
        }
        Ok(())
    }
}
