//! A compiled template, and the bytes of each recipient's message made from it.

use std::{cell::LazyCell, collections::BTreeSet, ops::Deref};

use minijinja::{Environment, ErrorKind, Value};

use super::{
    fast_path::FastPathPart,
    fields::{self, FieldValues, TrackingFields},
    template_pace::TemplatePace,
    template_problem::{RenderError, describe},
    template_threads::run_in_place,
    tracked_links::{ORIGINAL, TrackedLinks},
};
use crate::{
    domain::audience::Recipient,
    mail::{
        compose::{Body, Draft, MessageStamp, ProofMarks},
        to_ascii,
    },
};

/// The compiled content of a delivery. It is cheap to share, and rendering needs no lock.
#[derive(Debug)]
pub struct Template {
    pub(super) environment: Environment<'static>,
    /// Subject, HTML and text.
    pub(super) parts: [MessagePart; 3],
    /// The merge fields of all parts.
    pub(super) used: BTreeSet<String>,
    pub(super) common_headers: String,
    pub(super) envelope_from: String,
    /// The largest size of a message.
    pub(super) limit_bytes: usize,
    /// `None` if the installation has no public listener.
    pub(super) tracked: Option<TrackedLinks>,
    pub(super) pace: TemplatePace,
}

/// One part of a message.
#[derive(Debug)]
pub(super) struct MessagePart {
    /// The name of its template.
    pub(super) name: &'static str,
    /// The merge fields that it uses.
    pub(super) fields: BTreeSet<String>,
    pub(super) fast_path: FastPathPart,
    /// The message has no such part.
    pub(super) is_absent: bool,
}

impl Template {
    /// The merge fields that the content uses, also those with a default.
    pub fn fields(&self) -> &BTreeSet<String> {
        &self.used
    }

    /// The envelope sender (MAIL FROM) in ASCII.
    pub fn envelope_from(&self) -> &str {
        &self.envelope_from
    }

    /// The message for one recipient (RFC 5322, MIME).
    ///
    /// The message is ASCII with CRLF line ends. Lines have at most 76 bytes where they can be
    /// broken. A field that is null counts as missing. The same input gives the same bytes.
    ///
    /// # Errors
    ///
    /// - A field is missing, or a template fails.
    /// - The subject would have a control character.
    /// - SMTP cannot carry the address.
    /// - The message is larger than the limit.
    /// - The message is tracked, and `stamp` has no signer.
    pub fn render(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
    ) -> Result<Vec<u8>, RenderError> {
        self.render_marked(recipient, stamp, None, Vec::new())
    }

    /// As [`Template::render`], but reuses the memory of `buffer`, whose content is dropped.
    ///
    /// A message that may take long keeps no other task of the runtime waiting.
    ///
    /// # Errors
    ///
    /// As [`Template::render`].
    pub fn render_into(
        &self,
        recipient: &Recipient,
        stamp: &MessageStamp,
        buffer: Vec<u8>,
    ) -> Result<Vec<u8>, RenderError> {
        let work = || self.render_marked(recipient, stamp, None, buffer);
        match self.pace.may_be_slow() {
            Some(true) => run_in_place(|| self.pace.measure(work)),
            Some(false) => self.pace.measure(work),
            None => work(),
        }
    }

    /// The parts that may take long: they need the template engine, or have a loop.
    pub fn costly_parts(&self) -> impl Iterator<Item = &'static str> {
        let is_costly = |part: &&MessagePart| !part.is_absent && !part.fast_path.is_simple();
        self.parts.iter().filter(is_costly).map(|part| part.name)
    }

    /// A proof: the recipient's message for a test address, changed only by the marks.
    ///
    /// # Errors
    ///
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
        buffer: Vec<u8>,
    ) -> Result<Vec<u8>, RenderError> {
        let values = self.values(recipient, stamp)?;
        let draft = self.draft(marks.map_or(&recipient.email, |marks| &marks.to), &values)?;
        self.encode(draft, stamp, marks, buffer)
    }

    /// The merged texts of a message to the address `to`.
    pub(super) fn draft<'a>(
        &'a self,
        to: &str,
        values: &'a FieldValues<'_>,
    ) -> Result<Draft<'a>, RenderError> {
        let to = to_ascii(to).map_err(|error| RenderError {
            part: "email",
            field: Some("email".into()),
            message: error.to_string(),
        })?;
        let context = LazyCell::new(|| fields::context(&self.used, values));
        let [subject, html, text] = &self.parts;
        let subject =
            self.body(subject, values, &context)?.map_or_else(String::new, |body| body.text());
        self.check_header(&subject, values)?;
        let opt_out_url = values.tracking.as_ref().map(|tracking| &*tracking.unsubscribe_url);
        let text = self.body(text, values, &context)?;
        Ok(Draft { to, subject, opt_out_url, text, html: self.body(html, values, &context)? })
    }

    /// The bytes of a message, if they are within the limit.
    pub(super) fn encode(
        &self,
        draft: Draft<'_>,
        stamp: &MessageStamp,
        marks: Option<&ProofMarks>,
        buffer: Vec<u8>,
    ) -> Result<Vec<u8>, RenderError> {
        let message = draft.encode(&self.common_headers, stamp, marks, buffer);
        if message.len() > self.limit_bytes {
            return Err(RenderError {
                part: "message",
                field: None,
                message: format!("has {} bytes, the limit is {}", message.len(), self.limit_bytes),
            });
        }
        Ok(message)
    }

    /// The values for one message.
    pub(super) fn values<'a>(
        &'a self,
        recipient: &'a Recipient,
        stamp: &'a MessageStamp,
    ) -> Result<FieldValues<'a>, RenderError> {
        let tracking = match (&self.tracked, &stamp.signer) {
            (Some(tracked), Some(signer)) => {
                Some(TrackingFields::new(&tracked.base, signer, &self.used))
            }
            (None, _) => None,
            (Some(_), None) => {
                let message = "is tracked, but its stamp has no signer".to_owned();
                return Err(RenderError { part: "message", field: None, message });
            }
        };
        Ok(FieldValues { recipient, tracking })
    }

    /// The text of a part: by the fast path, or else by the engine. `None` if there is no part.
    pub(super) fn body<'a>(
        &'a self,
        part: &'a MessagePart,
        values: &'a FieldValues<'_>,
        context: &impl Deref<Target = Value>,
    ) -> Result<Option<Body<'a>>, RenderError> {
        if let Some(body) = part.fast_path.render(part.name, values, || Value::clone(context)) {
            return Ok(Some(body));
        }
        Ok(self
            .render_by_engine(part.name, values, context)?
            .map(|text| Body::new(text, &[], None)))
    }

    /// The text of a template by the engine. `None` if there is no such template.
    pub(super) fn render_by_engine(
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
                    .then(|| fields::missing(&error, template.source(), used, values))
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

    /// Refuses control characters: a line end in a value would begin a new header (RFC 5322, 2.2).
    fn check_header(&self, subject: &str, values: &FieldValues<'_>) -> Result<(), RenderError> {
        let Some(found) = subject.chars().find(|c| c.is_control()) else {
            return Ok(());
        };
        Err(RenderError {
            part: "subject",
            field: fields::first_with(found, self.fields_of("subject"), values),
            message: format!(
                "holds the control character U+{:04X}, which a header must not have",
                u32::from(found)
            ),
        })
    }
}
