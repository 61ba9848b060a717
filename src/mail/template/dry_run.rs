//! The dry run: finds out whether a recipient's message can be made, mostly without making it.

use minijinja::ErrorKind;
use url::Url;

use super::{
    fields::{self, FieldValues},
    mirror::as_mail_program_reads,
    render::Template,
    template_problem::{RenderError, describe},
    tracked_links::ORIGINAL,
};
use crate::{
    domain::{audience::Recipient, tracking::TrackedLink},
    mail::{
        compose::{Draft, MessageStamp},
        links::is_web,
    },
};

/// The most bytes that one byte takes when it is encoded.
///
/// The widest form is `=C3` with its share of soft line breaks. Encoded words take less.
const MAX_ENCODED_BYTES: usize = 4;
/// A bound for the headers and boundaries that are not counted one by one.
const OTHER_BYTES: usize = 2048;

impl Template {
    /// Whether [`Template::render`] makes the message, and [`Template::target`] its links.
    ///
    /// # Errors
    ///
    /// As [`Template::render`]. Also: a link lacks a field, takes the engine too many steps, or
    /// leads to a URL that is not `http` or `https`.
    pub fn try_message(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
    ) -> Result<(), RenderError> {
        let values = self.values(recipient, stamp)?;
        let draft = self.draft(&recipient.email, &values)?;
        if self.upper_bound_bytes(&draft, stamp) > self.limit_bytes {
            self.encode(draft, stamp, None, Vec::new())?;
        }
        self.try_links(recipient, stamp)
    }

    /// A size that the message does not exceed in any encoding.
    fn upper_bound_bytes(&self, draft: &Draft<'_>, stamp: &MessageStamp) -> usize {
        let bytes = draft.subject.len()
            + draft.text.iter().chain(&draft.html).map(|body| body.bytes).sum::<usize>();
        let headers = self.common_headers.len()
            + draft.opt_out_url.map_or(0, str::len)
            + stamp.message_id.len()
            + OTHER_BYTES;
        headers + MAX_ENCODED_BYTES * bytes
    }

    /// Whether the links that differ between recipients can be made for this one.
    ///
    /// The tracked message shows no fault of these links, because it holds tokens in their place.
    ///
    /// # Errors
    ///
    /// A field is missing, a link takes the engine too many steps, or its URL is not `http` or
    /// `https`.
    pub(super) fn try_links(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
    ) -> Result<(), RenderError> {
        let values = FieldValues { recipient, tracking: None };
        let mut original_renders = false;
        for (number, link) in self.links().iter().enumerate().filter(|(_, link)| link.merged) {
            let url = match self.merged_target(number, &values) {
                Some(url) => Some(url),
                None => {
                    if !original_renders {
                        // A link may lack a field if it stands in a condition that is false. So
                        // the whole part decides about missing fields.
                        let values = self.values(recipient, stamp)?;
                        let context = fields::context(&self.used, &values);
                        self.render_by_engine(ORIGINAL, &values, &context)?;
                        original_renders = true;
                    }
                    match self.merged_target_by_engine(link, &values) {
                        Some(Err(error)) if error.kind() == ErrorKind::OutOfFuel => {
                            let message = format!("the link {:?} {}", link.label, describe(&error));
                            return Err(RenderError { part: "html", field: None, message });
                        }
                        other => other.and_then(Result::ok),
                    }
                }
            };
            if let Some(url) = url.map(|url| as_mail_program_reads(&url)) {
                check_target(link, &url)?;
            }
        }
        Ok(())
    }
}

/// Refuses a target that is a URL, but not of the web.
///
/// A target that is no URL at all is accepted: its link may stand in a condition that is false.
fn check_target(link: &TrackedLink, url: &str) -> Result<(), RenderError> {
    // Most targets are accepted without a parser.
    let is_web_at_sight = url.starts_with("https://") || url.starts_with("http://");
    if is_web_at_sight || !Url::parse(url).is_ok_and(|url| !is_web(&url)) {
        return Ok(());
    }
    let message = format!(
        "the link {:?} leads to {url:?}, which is not a web page: give it data-track=\"false\"",
        link.label
    );
    Err(RenderError { part: "html", field: None, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::delivery::{Content, Sender, Tracking};

    proptest::proptest! {
        #[test]
        fn no_message_exceeds_the_upper_bound(
            subject in "\\PC{0,200}",
            html in "={0,3000}|[ -~é\n=.]{0,300}|\\PC{0,300}",
            text in proptest::option::of("\n{0,3000}|[ =\t\n.é]{0,300}|\\PC{0,300}"),
        ) {
            let sender = Sender {
                name: None,
                email: "news@shop.example".into(),
                reply_to: None,
                envelope_from: None,
            };
            let content = Content {
                subject: "{{ subject }}".into(),
                html: Some("{{ html }}".into()),
                text: text.as_ref().map(|_| "{{ text }}".into()),
            };
            let template = Template::compile(&sender, &content, &Tracking::default(), 1 << 20)
                .expect("compiles");
            let fields = json!({"subject": subject, "html": html, "text": text});
            let fields = fields.as_object().cloned().expect("an object");
            let recipient = Recipient { line: 1, email: "ann@example.org".into(), fields };
            let (message_id, boundary) = ("1@shop.example".into(), "b".into());
            let date = jiff::Timestamp::UNIX_EPOCH;
            let stamp = MessageStamp { date, message_id, boundary, signer: None };
            let values = template.values(&recipient, &stamp).expect("nothing is tracked");
            let Ok(draft) = template.draft(&recipient.email, &values) else {
                return Ok(());
            };
            let most = template.upper_bound_bytes(&draft, &stamp);
            let message =
                template.encode(draft, &stamp, None, Vec::new()).expect("below the limit");
            let bytes = message.len();
            proptest::prop_assert!(bytes + OTHER_BYTES / 2 <= most, "{bytes} {most}");
        }
    }
}
