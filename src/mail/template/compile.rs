//! Compiles a delivery's content, and finds problems that all recipients would have.

use std::collections::BTreeSet;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use super::{
    fast_path::FastPathPart,
    language::{self, Violation, approved_environment, environment},
    limits::MERGE_LIMITS,
    render::{MessagePart, Template},
    tags,
    template_pace::TemplatePace,
    template_problem::{TemplateProblem, describe},
    text_alternative,
    tracked_links::{ORIGINAL, TrackedLinks},
};
use crate::{
    domain::{
        delivery::{Content, Sender, Tracking},
        misleads,
    },
    mail::{compose::mime, links::placeholder, to_ascii},
};

/// Which templates are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// Those of the template language.
    Language,
    /// Those that earlier versions accepted, except templates that may nest values deeply.
    Approved,
}

impl Template {
    /// Compiles a delivery's content. `limit_bytes` is the largest size of a message.
    ///
    /// # Errors
    ///
    /// All problems found, not only the first.
    pub fn compile(
        sender: &Sender,
        content: &Content,
        tracking: &Tracking,
        limit_bytes: usize,
    ) -> Result<Self, Vec<TemplateProblem>> {
        Self::compile_by(Rules::Language, sender, content, (tracking, limit_bytes))
    }

    /// Compiles the content of a prepared delivery.
    ///
    /// An earlier version may have approved a template outside the language. It is still rendered
    /// by the rules of that time, unless it could nest values deeply.
    ///
    /// # Errors
    ///
    /// All problems by the rules of the template language.
    pub fn compile_approved(
        sender: &Sender,
        content: &Content,
        tracking: &Tracking,
        limit_bytes: usize,
    ) -> Result<Self, Vec<TemplateProblem>> {
        let limits = (tracking, limit_bytes);
        Self::compile_by(Rules::Language, sender, content, limits).or_else(|problems| {
            let is_outside = content.parts().any(|(_, source)| language::check(source).is_err());
            let compiled = is_outside
                .then(|| Self::compile_by(Rules::Approved, sender, content, limits).ok())
                .flatten();
            compiled.ok_or(problems)
        })
    }

    fn compile_by(
        rules: Rules,
        sender: &Sender,
        content: &Content,
        (tracking, limit_bytes): (&Tracking, usize),
    ) -> Result<Self, Vec<TemplateProblem>> {
        let mut problems = Vec::new();
        let common_headers = common_headers(sender, &mut problems);
        let envelope_from = envelope_from(sender, &mut problems);
        let mut environment = rules.environment();
        let parts = parts(content, limit_bytes, &mut problems);
        add_parts(rules, &mut environment, parts, &mut problems);
        if problems.is_empty()
            && let Err(problem) = add_text_from_html(rules, &mut environment, content)
        {
            problems.push(problem);
        }
        problems.dedup();
        if !problems.is_empty() {
            return Err(problems);
        }
        let tracked =
            TrackedLinks::new(&mut environment, tracking).map_err(|problem| vec![problem])?;
        let parts = ["subject", "html", "text"].map(|name| {
            let fields = used_fields(&environment, name);
            let fast_path = FastPathPart::new(&environment, name, &fields, MERGE_LIMITS);
            let is_absent = environment.get_template(name).is_err();
            MessagePart { name, fields, fast_path, is_absent }
        });
        let is_simple = parts.iter().all(|part| part.is_absent || part.fast_path.is_simple());
        Ok(Template {
            pace: TemplatePace::new(is_simple),
            used: parts
                .iter()
                .flat_map(|part| part.fields.clone())
                .chain(used_fields(&environment, ORIGINAL))
                .collect(),
            parts,
            environment,
            common_headers,
            envelope_from,
            limit_bytes,
            tracked,
        })
    }
}

impl Rules {
    fn environment(self) -> Environment<'static> {
        match self {
            Self::Language => environment(),
            Self::Approved => approved_environment(),
        }
    }

    fn check(self, source: &str) -> Result<(), Violation> {
        match self {
            Self::Language => language::check(source),
            Self::Approved => {
                if let Some((line, reason)) = tags::too_deep(source) {
                    return Err(Violation { line: Some(line), reason });
                }
                if !language::is_harmless(source) {
                    let reason = "nests values in one another".to_owned();
                    return Err(Violation { line: None, reason });
                }
                Ok(())
            }
        }
    }
}

/// The headers that are the same for every recipient.
fn common_headers(sender: &Sender, problems: &mut Vec<TemplateProblem>) -> String {
    let mut headers = String::from("MIME-Version: 1.0\r\n");
    let name = sender.name.as_deref().unwrap_or("");
    if name.contains(misleads) {
        problems.push(TemplateProblem {
            part: "sender.name",
            line: None,
            message: "holds a control character or one that turns the direction of the text".into(),
        });
    }
    let email = checked_address("sender.email", &sender.email, problems);
    mime::mailbox_header(&mut headers, "From", name, &email);
    if let Some(reply_to) = &sender.reply_to {
        let reply_to = checked_address("sender.reply_to", reply_to, problems);
        mime::mailbox_header(&mut headers, "Reply-To", "", &reply_to);
    }
    headers
}

/// The envelope sender in ASCII: the sender's own address, if no other is given.
fn envelope_from(sender: &Sender, problems: &mut Vec<TemplateProblem>) -> String {
    let (part, email) = match &sender.envelope_from {
        Some(email) => ("sender.envelope_from", email),
        None => ("sender.email", &sender.email),
    };
    checked_address(part, email, problems)
}

fn checked_address(part: &'static str, email: &str, problems: &mut Vec<TemplateProblem>) -> String {
    to_ascii(email).unwrap_or_else(|error| {
        problems.push(TemplateProblem { part, line: None, message: error.to_string() });
        String::new()
    })
}

/// The given sources within the size limit, each with the name of its part.
fn parts(
    content: &Content,
    limit_bytes: usize,
    problems: &mut Vec<TemplateProblem>,
) -> Vec<(&'static str, String)> {
    let mut refuse = |part, message: String| {
        problems.push(TemplateProblem { part, line: None, message });
    };
    if content.html.is_none() && content.text.is_none() {
        refuse("html", "neither html nor text is given".into());
    }
    if content.subject.trim().is_empty() {
        refuse("subject", "is empty".into());
    }
    if content.subject.trim_end().chars().any(char::is_control) {
        refuse("subject", "holds a control character, which a header must not have".into());
    }
    let mut parts = vec![("subject", content.subject.trim_end().to_owned())];
    for (part, source) in [("html", &content.html), ("text", &content.text)] {
        let Some(source) = source else { continue };
        if source.trim().is_empty() {
            refuse(part, "is empty".into());
        }
        if source.len() > limit_bytes {
            refuse(part, format!("has {} bytes, the limit is {limit_bytes}", source.len()));
        } else {
            parts.push((part, source.clone()));
        }
    }
    parts
}

/// Adds each part that the engine accepts.
fn add_parts(
    rules: Rules,
    environment: &mut Environment<'static>,
    parts: Vec<(&'static str, String)>,
    problems: &mut Vec<TemplateProblem>,
) {
    for (part, source) in parts {
        if let Err(Violation { line, reason }) = rules.check(&source) {
            problems.push(TemplateProblem { part, line, message: reason });
        } else if let Err(error) = environment.add_template_owned(part, source) {
            problems.push(TemplateProblem::of_engine(part, &error));
        } else if let Some(problem) = problem_for_everybody(environment, part) {
            problems.push(problem);
        }
    }
}

/// Adds a text part made from the HTML part, if only HTML is given.
fn add_text_from_html(
    rules: Rules,
    environment: &mut Environment<'static>,
    content: &Content,
) -> Result<(), TemplateProblem> {
    let (Some(html), None) = (&content.html, &content.text) else { return Ok(()) };
    let problem = |message| TemplateProblem { part: "text", line: None, message };
    let text = text_alternative::from_html(html).map_err(problem)?;
    rules.check(&text).map_err(|violation| {
        problem(format!("could not be made from html, give one: {}", violation.reason))
    })?;
    environment.add_template_owned("text", text).map_err(|error| {
        problem(format!("could not be made from html, give one: {}", describe(&error)))
    })
}

/// A problem that the part has for every recipient: an unknown filter or function, an endless loop.
///
/// The part is rendered without any field. A missing field is no problem here.
fn problem_for_everybody(
    environment: &Environment<'static>,
    part: &'static str,
) -> Option<TemplateProblem> {
    let mut lenient = environment.clone();
    lenient.set_undefined_behavior(UndefinedBehavior::Chainable);
    let error = lenient.get_template(part).ok()?.render(()).err()?;
    let is_certain = matches!(
        error.kind(),
        ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction
            | ErrorKind::TemplateNotFound
            | ErrorKind::BadInclude
            | ErrorKind::OutOfFuel
    );
    is_certain.then(|| TemplateProblem::of_engine(part, &error))
}

/// The merge fields of a part, without the engine's own globals, such as `range`.
fn used_fields(environment: &Environment<'static>, part: &str) -> BTreeSet<String> {
    let globals: BTreeSet<&str> = environment.globals().map(|(name, _)| name).collect();
    environment
        .get_template(part)
        .map(|template| template.undeclared_variables(false))
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !globals.contains(name.as_str()) && name != placeholder::NAME)
        .collect()
}
