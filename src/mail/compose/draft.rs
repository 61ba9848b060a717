//! The texts of one message, and the bytes made from them (RFC 5322, MIME).

use jiff::{fmt::rfc2822, tz::TimeZone};

use super::{
    body::Body,
    mime,
    stamp::{MessageStamp, ProofMarks},
};

/// The texts that differ between recipients, before they are encoded.
pub struct Draft<'a> {
    /// The address in the `To` header, in ASCII.
    pub to: String,
    /// The subject as text, without control characters.
    pub subject: String,
    /// The address of the opt-out, in ASCII; `None` if nothing is tracked.
    pub opt_out_url: Option<&'a str>,
    /// The text part.
    pub text: Option<Body<'a>>,
    /// The HTML part.
    pub html: Option<Body<'a>>,
}

impl Draft<'_> {
    /// The message in ASCII, with CRLF line ends.
    ///
    /// `common_headers` are the headers that are the same for all recipients. The message is
    /// written into `buffer`, whose content is dropped.
    pub fn encode(
        self,
        common_headers: &str,
        stamp: &MessageStamp,
        marks: Option<&ProofMarks>,
        mut buffer: Vec<u8>,
    ) -> Vec<u8> {
        let Self { to, subject, opt_out_url, text, html } = self;
        let size: usize = text.iter().chain(&html).map(|body| body.encoded_bytes).sum();
        buffer.clear();
        let mut out = String::from_utf8(buffer).unwrap_or_default();
        out.reserve(common_headers.len() + size + 1024);
        out.push_str(common_headers);
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
        if let Some(url) = opt_out_url {
            mime::opt_out_headers(&mut out, url);
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
            // A delivery without any part does not compile.
            (None, None) => {}
        }
        out.into_bytes()
    }
}

/// The date in UTC (RFC 5322, 3.3).
fn date(stamp: &MessageStamp) -> String {
    let zoned = stamp.date.to_zoned_datetime(TimeZone::UTC);
    // Only a negative year fails. Only the assumed date of a preview can have one.
    rfc2822::to_string(&zoned).unwrap_or_default()
}

/// Both parts, the simpler one first (RFC 2046, 5.1.4).
///
/// No body holds the boundary, because `=_` occurs in neither transfer encoding.
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
