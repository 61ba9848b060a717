//! Whether a recipient's message can be made, without making all of it.

use url::Url;

use super::{
    fields::FieldValues,
    render::{MessageStamp, RenderError, Template},
    tracked_links::{ORIGINAL, as_read},
};
use crate::{
    domain::audience::Recipient,
    mail::{compose::Draft, links::is_web, template::fields},
};

/// No transfer encoding, and no encoded words, make more of a byte: `=C3` and its share of soft line breaks.
const MOST_OF_A_BYTE: usize = 4;
/// Of the headers and boundaries that are not counted one by one.
const OTHER_BYTES: usize = 2048;

impl Template {
    /// Whether [`Template::render`] makes the message and [`Template::target`] its links.
    ///
    /// # Errors
    /// As [`Template::render`]; of a link: a missing field, an address that is not of the web.
    pub fn try_message(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
    ) -> Result<(), RenderError> {
        let values = self.values(recipient, stamp)?;
        let draft = self.draft(&recipient.email, &values)?;
        if self.most_bytes(&draft, &values, stamp) > self.limit_bytes {
            self.encode(draft, &values, stamp, None, Vec::new())?;
        }
        self.try_links(recipient, stamp)
    }

    /// What the message does not have more of, however it is encoded.
    fn most_bytes(
        &self,
        draft: &Draft<'_>,
        values: &FieldValues<'_>,
        stamp: &MessageStamp,
    ) -> usize {
        let bytes = draft.subject.len()
            + draft.text.iter().chain(&draft.html).map(|body| body.bytes).sum::<usize>();
        let opt_out = values.own.as_ref().map_or(0, |own| own.unsubscribe_url.len());
        self.head.len() + opt_out + stamp.message_id.len() + OTHER_BYTES + MOST_OF_A_BYTE * bytes
    }

    /// What the tracked message does not show: whether the links that differ between recipients can be made for this one.
    ///
    /// # Errors
    /// A missing field, an address that is not of the web.
    pub(super) fn try_links(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
    ) -> Result<(), RenderError> {
        let values = FieldValues { recipient, own: None };
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
            let is_elsewhere =
                |url: &String| !at_sight(url) && Url::parse(url).is_ok_and(|url| !is_web(&url));
            if let Some(url) = url.map(|url| as_read(&url)).filter(is_elsewhere) {
                let message = format!(
                    "the link {:?} leads to {url:?}: what is no web page needs data-track=\"false\"",
                    link.label
                );
                return Err(RenderError { part: "html", field: None, message });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::delivery::{Content, Sender, Tracking};

    proptest::proptest! {
        #[test]
        fn no_message_has_more_than_the_most(
            subject in "\\PC{0,200}",
            html in "={0,3000}|[ -~é\n=.]{0,300}|\\PC{0,300}",
            text in proptest::option::of("\n{0,3000}|[ =\t\n.é]{0,300}|\\PC{0,300}"),
        ) {
            let sender = Sender { name: None, email: "news@shop.example".into(), reply_to: None, envelope_from: None };
            let content = Content { subject: "{{ subject }}".into(), html: Some("{{ html }}".into()), text: text.as_ref().map(|_| "{{ text }}".into()) };
            let template = Template::compile(&sender, &content, &Tracking::default(), 1 << 20).expect("compiles");
            let fields = json!({"subject": subject, "html": html, "text": text});
            let recipient = Recipient { line: 1, email: "ann@example.org".into(), fields: fields.as_object().cloned().expect("an object") };
            let (message_id, boundary) = ("1@shop.example".into(), "b".into());
            let stamp = MessageStamp { date: jiff::Timestamp::UNIX_EPOCH, message_id, boundary, signer: None };
            let values = template.values(&recipient, &stamp).expect("nothing is tracked");
            let Ok(draft) = template.draft(&recipient.email, &values) else { return Ok(()) };
            let most = template.most_bytes(&draft, &values, &stamp);
            let message = template.encode(draft, &values, &stamp, None, Vec::new()).expect("below the limit");
            proptest::prop_assert!(message.len() + OTHER_BYTES / 2 <= most, "{} {most}", message.len());
        }
    }
}
