//! Messages in the form that goes over the wire (RFC 5322, MIME).

use jiff::{fmt::rfc2822, tz::TimeZone};

use super::body::Body;
use crate::mail::{
    compose::mime,
    template::{FieldValues, MessageStamp, ProofMarks, RenderError, Template},
};

/// What differs between recipients, before it is encoded.
pub struct Draft<'a> {
    /// In ASCII.
    pub to: String,
    pub subject: String,
    pub text: Option<Body<'a>>,
    pub html: Option<Body<'a>>,
}

impl Template {
    pub(crate) fn encode(
        &self,
        Draft { to, subject, text, html }: Draft<'_>,
        values: &FieldValues<'_>,
        stamp: &MessageStamp,
        marks: Option<&ProofMarks>,
        mut space: Vec<u8>,
    ) -> Result<Vec<u8>, RenderError> {
        let size: usize = text.iter().chain(&html).map(|body| body.encoded_bytes).sum();
        space.clear();
        let mut out = String::from_utf8(space).unwrap_or_default();
        out.reserve(self.head.len() + size + 1024);
        out.push_str(&self.head);
        append(
            &mut out,
            [
                "Date: ",
                &date(stamp),
                "\r\nMessage-ID: <",
                &stamp.message_id,
                ">\r\nTo: ",
                &to,
                "\r\n",
            ],
        );
        if let Some(own) = &values.own {
            mime::opt_out_headers(&mut out, &own.unsubscribe_url);
        }
        match marks {
            Some(marks) => {
                append(&mut out, ["X-Versand-Proof: ", &marks.of, "\r\n"]);
                mime::text_header(
                    &mut out,
                    "Subject",
                    &format!("{}{subject}", marks.subject_prefix),
                );
            }
            None => mime::text_header(&mut out, "Subject", &subject),
        }
        match (text, html) {
            (Some(text), Some(html)) => alternative(&mut out, &stamp.boundary, &text, &html),
            (Some(text), None) => mime::text_part(&mut out, "plain", &text),
            (None, Some(html)) => mime::text_part(&mut out, "html", &html),
            // compiling saw to it that there is one
            (None, None) => {}
        }
        if out.len() > self.limit_bytes {
            return Err(RenderError {
                part: "message",
                field: None,
                message: format!("has {} bytes, the limit is {}", out.len(), self.limit_bytes),
            });
        }
        Ok(out.into_bytes())
    }
}

/// RFC 5322, 3.3, in UTC.
fn date(stamp: &MessageStamp) -> String {
    let zoned = stamp.date.to_zoned_datetime(TimeZone::UTC);
    // Only years beyond four digits fail, which a timestamp cannot have.
    rfc2822::to_string(&zoned).unwrap_or_default()
}

/// RFC 2046, 5.1.4: the simplest part first. `=_` cannot occur in either transfer encoding, so no body
/// holds the boundary.
fn alternative(out: &mut String, boundary: &str, text: &Body<'_>, html: &Body<'_>) {
    append(
        out,
        [
            "Content-Type: multipart/alternative;\r\n boundary=\"=_",
            boundary,
            "\"\r\n\r\n--=_",
            boundary,
            "\r\n",
        ],
    );
    mime::text_part(out, "plain", text);
    append(out, ["--=_", boundary, "\r\n"]);
    mime::text_part(out, "html", html);
    append(out, ["--=_", boundary, "--\r\n"]);
}

fn append<const N: usize>(out: &mut String, pieces: [&str; N]) {
    out.extend(pieces);
}
