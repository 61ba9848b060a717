//! A delivery's content, compiled once; rendered for each recipient into the bytes that are sent.

use std::{cell::LazyCell, collections::BTreeSet, ops::Deref};

use jiff::Timestamp;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::{
    fields::{FieldValues, OwnFields},
    tracked_links::{ORIGINAL, TrackedLinks},
};
use crate::{
    domain::{
        audience::Recipient,
        delivery::{Content, Sender, Tracking},
    },
    mail::{
        address,
        compose::{Body, Draft},
        links::TokenSigner,
        template::fast_path::FastPathPart,
    },
};

/// What is wrong with a delivery's sender or content; `line` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateProblem {
    /// `subject`, `html`, `text`, `sender.name`, `sender.email`, `sender.reply_to`, `sender.envelope_from`
    pub part: &'static str,
    pub line: Option<u32>,
    pub message: String,
}

/// Why one recipient's message could not be made. The message may quote the recipient's fields: it is
/// for answers and reports, not for log lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {message}")]
pub struct RenderError {
    /// `subject`, `html`, `text`, `email` or `message`
    pub part: &'static str,
    /// The merge field to blame, where there is one.
    pub field: Option<String>,
    pub message: String,
}

/// What is the same for every rendering of one message, so that its bytes are the same too.
#[derive(Debug, Clone)]
pub struct MessageStamp {
    pub date: Timestamp,
    /// `left@right`, without angle brackets (RFC 5322, 3.6.4).
    pub message_id: String,
    /// Letters, digits and `-`, at most 60.
    pub boundary: String,
    /// Makes the tokens of a tracked message.
    pub signer: Option<TokenSigner>,
}

/// What tells a proof from the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofMarks {
    /// The test address.
    pub to: String,
    /// Without control characters.
    pub subject_prefix: String,
    /// Whose message it is: short, ASCII, without spaces.
    pub of: String,
}

/// A compiled delivery. Cheap to share, `render` needs no lock.
#[derive(Debug)]
pub struct Template {
    pub(super) environment: Environment<'static>,
    pub(super) parts: [MessagePart; 3],
    pub(super) used: BTreeSet<String>,
    /// The headers that are the same for everybody.
    pub(crate) head: String,
    pub(super) envelope_from: String,
    pub(crate) limit_bytes: usize,
    /// None if the installation has no public listener.
    pub(super) tracked: Option<TrackedLinks>,
}

#[derive(Debug)]
pub(super) struct MessagePart {
    pub(super) name: &'static str,
    /// Its merge fields.
    pub(super) fields: BTreeSet<String>,
    pub(super) quick: FastPathPart,
}

impl Template {
    /// Compiles a delivery's content. `limit_bytes` bounds a rendered message.
    ///
    /// # Errors
    /// Every problem found, not only the first.
    pub fn compile(
        sender: &Sender,
        content: &Content,
        tracking: &Tracking,
        limit_bytes: usize,
    ) -> Result<Self, Vec<TemplateProblem>> {
        super::compile::compile(sender, content, tracking, limit_bytes)
    }

    /// The merge fields that the templates use, also those with a default.
    pub fn fields(&self) -> &BTreeSet<String> {
        &self.used
    }

    /// The envelope sender (MAIL FROM) in ASCII.
    pub fn envelope_from(&self) -> &str {
        &self.envelope_from
    }

    /// The message for one recipient (RFC 5322, MIME): ASCII, lines of at most 76 bytes where they can be
    /// broken, CRLF throughout. A field that is null counts as missing. The same input gives the same bytes.
    ///
    /// # Errors
    /// A missing field, a template that fails, control characters in a header, an address that cannot be
    /// sent to, a message above the limit.
    pub fn render(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
    ) -> Result<Vec<u8>, RenderError> {
        self.render_marked(recipient, stamp, None, Vec::new())
    }

    /// The same in the space of a message that is no longer needed.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_into(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
        space: Vec<u8>,
    ) -> Result<Vec<u8>, RenderError> {
        self.render_marked(recipient, stamp, None, space)
    }

    /// The recipient's message as a proof of it: the same but for what the marks say.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn proof(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
        marks: &ProofMarks,
    ) -> Result<Vec<u8>, RenderError> {
        self.render_marked(recipient, stamp, Some(marks), Vec::new())
    }

    fn render_marked(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
        marks: Option<&ProofMarks>,
        space: Vec<u8>,
    ) -> Result<Vec<u8>, RenderError> {
        let values = self.values(recipient, stamp)?;
        let draft = self.draft(marks.map_or(&recipient.email, |marks| &marks.to), &values)?;
        self.encode(draft, &values, stamp, marks, space)
    }

    pub(super) fn draft<'a>(
        &'a self,
        to: &str,
        values: &'a FieldValues<'_>,
    ) -> Result<Draft<'a>, RenderError> {
        let to = address::to_ascii(to).map_err(|e| RenderError {
            part: "email",
            field: Some("email".into()),
            message: e.to_string(),
        })?;
        let context = LazyCell::new(|| super::fields::context(&self.used, values));
        let [subject, html, text] = &self.parts;
        let subject =
            self.body(subject, values, &context)?.map_or_else(String::new, |body| body.text());
        self.check_header(&subject, values)?;
        let text = self.body(text, values, &context)?;
        Ok(Draft { to, subject, text, html: self.body(html, values, &context)? })
    }

    pub(super) fn values<'a>(
        &'a self,
        recipient: &'a Recipient,
        stamp: &'a MessageStamp,
    ) -> Result<FieldValues<'a>, RenderError> {
        let own = match (&self.tracked, &stamp.signer) {
            (Some(tracked), Some(signer)) => {
                Some(OwnFields::new(&tracked.base, signer, &self.used))
            }
            (None, _) => None,
            (Some(_), None) => {
                let message = "nothing makes its tokens".to_owned();
                return Err(RenderError { part: "message", field: None, message });
            }
        };
        Ok(FieldValues { recipient, own })
    }

    pub(super) fn body<'a>(
        &'a self,
        part: &'a MessagePart,
        values: &'a FieldValues<'_>,
        context: &impl Deref<Target = Value>,
    ) -> Result<Option<Body<'a>>, RenderError> {
        if let Some(body) = part.quick.render(part.name, values, || Value::clone(context)) {
            return Ok(Some(body));
        }
        Ok(self.whole(part.name, values, context)?.map(|text| Body::new(text, &[], None)))
    }

    /// A template by its source, with what is wrong.
    pub(super) fn whole(
        &self,
        name: &'static str,
        values: &FieldValues<'_>,
        context: &Value,
    ) -> Result<Option<String>, RenderError> {
        let Ok(template) = self.environment.get_template(name) else {
            return Ok(None);
        };
        let (part, used) = if name == ORIGINAL {
            ("html", Some(&self.used))
        } else {
            (name, self.fields_of(name))
        };
        match template.render(context.clone()) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let field = (error.kind() == ErrorKind::UndefinedError)
                    .then(|| super::fields::missing(&error, template.source(), used, values))
                    .flatten();
                let message = match &field {
                    Some(_) => "has no value".to_owned(),
                    None => describe(&error),
                };
                Err(RenderError { part, field, message })
            }
        }
    }

    fn fields_of(&self, part: &str) -> Option<&BTreeSet<String>> {
        self.parts.iter().find(|found| found.name == part).map(|found| &found.fields)
    }

    /// RFC 5322, 2.2: a line end in a value would start a header of its own.
    fn check_header(&self, subject: &str, values: &FieldValues<'_>) -> Result<(), RenderError> {
        let Some(found) = subject.chars().find(|c| c.is_control()) else {
            return Ok(());
        };
        Err(RenderError {
            part: "subject",
            field: super::fields::holding(found, self.fields_of("subject"), values),
            message: format!(
                "holds the control character U+{:04X}, which a header may not",
                u32::from(found)
            ),
        })
    }
}

/// One line.
pub(super) fn describe(error: &Error) -> String {
    let kind = error.kind();
    let text = match (kind, error.detail()) {
        (ErrorKind::OutOfFuel, _) => "takes too long; an endless loop?".to_owned(),
        (_, Some(detail)) => format!("{kind}: {detail}"),
        (_, None) => kind.to_string(),
    };
    text.replace(['\r', '\n'], " ")
}
