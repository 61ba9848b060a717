//! Compiling a delivery's content, and every problem that shows before a recipient is known.

use std::collections::BTreeSet;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::{
    render::{MessagePart, Template, TemplateProblem, describe},
    tracked_links::{ORIGINAL, TrackedLinks},
};
use crate::{
    domain::delivery::{Content, Sender, Tracking},
    mail::{
        address,
        compose::mime,
        links::placeholder,
        template::{
            fast_path::{FastPathPart, MergeLimits},
            tags, text_alternative,
        },
    },
};

/// Steps and 64-byte pieces that one part may take: far above any mail, some 20 ms and 12 MB at most.
const FUEL: u64 = 200_000;
const FUEL_BYTES: u64 = 64;
pub(super) const LIMITS: MergeLimits =
    MergeLimits { steps: FUEL, bytes: (FUEL * FUEL_BYTES) as usize };

pub(super) fn compile(
    sender: &Sender,
    content: &Content,
    tracking: &Tracking,
    limit_bytes: usize,
) -> Result<Template, Vec<TemplateProblem>> {
    let mut problems = Vec::new();
    let head = head(sender, &mut problems);
    let from = sender.envelope_from.as_deref().unwrap_or(&sender.email);
    let part = match sender.envelope_from {
        Some(_) => "sender.envelope_from",
        None => "sender.email",
    };
    let envelope_from = checked(part, from, &mut problems);
    let mut environment = environment();
    for (part, source) in parts(content, limit_bytes, &mut problems) {
        if let Some((line, message)) = tags::too_deep(&source) {
            problems.push(TemplateProblem { part, line: Some(line), message });
        } else if let Err(error) = environment.add_template_owned(part, source) {
            problems.push(problem(part, &error));
        } else if let Some(found) = try_out(&environment, part) {
            problems.push(found);
        }
    }
    let text_from_html = match (&content.html, &content.text) {
        (Some(html), None) if problems.is_empty() => text_alternative::from_html(html)
            .map_err(|message| TemplateProblem { part: "text", line: None, message })
            .map(Some),
        _ => Ok(None),
    };
    match text_from_html {
        Ok(Some(source)) => {
            if let Err(error) = environment.add_template_owned("text", source) {
                problems.push(TemplateProblem {
                    part: "text",
                    line: None,
                    message: format!("could not be made from html, give one: {}", describe(&error)),
                });
            }
        }
        Ok(None) => {}
        Err(problem) => problems.push(problem),
    }
    problems.dedup();
    if !problems.is_empty() {
        return Err(problems);
    }
    let tracked = TrackedLinks::new(&mut environment, tracking).map_err(|problem| vec![problem])?;
    let parts = ["subject", "html", "text"].map(|name| {
        let fields = used(&environment, name);
        let quick = FastPathPart::new(&environment, name, &fields, LIMITS);
        MessagePart { name, fields, quick }
    });
    Ok(Template {
        used: parts
            .iter()
            .flat_map(|part| part.fields.clone())
            .chain(used(&environment, ORIGINAL))
            .collect(),
        parts,
        environment,
        head,
        envelope_from,
        limit_bytes,
        tracked,
    })
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|part| match part {
        "html" | ORIGINAL => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    // Keeps where an error was, to name the field; costs nothing until one happens.
    environment.set_debug(true);
    // It would print every field of the recipient.
    environment.remove_global("debug");
    environment
}

/// The headers that are the same for every recipient.
fn head(sender: &Sender, problems: &mut Vec<TemplateProblem>) -> String {
    let mut head = String::from("MIME-Version: 1.0\r\n");
    let name = sender.name.as_deref().unwrap_or("");
    if name.chars().any(char::is_control) {
        problems.push(TemplateProblem {
            part: "sender.name",
            line: None,
            message: "holds a control character, which a header may not".into(),
        });
    }
    let email = checked("sender.email", &sender.email, problems);
    mime::mailbox_header(&mut head, "From", name, &email);
    if let Some(reply_to) = &sender.reply_to {
        let reply_to = checked("sender.reply_to", reply_to, problems);
        mime::mailbox_header(&mut head, "Reply-To", "", &reply_to);
    }
    head
}

fn checked(part: &'static str, email: &str, problems: &mut Vec<TemplateProblem>) -> String {
    address::to_ascii(email).unwrap_or_else(|error| {
        problems.push(TemplateProblem { part, line: None, message: error.to_string() });
        String::new()
    })
}

/// The sources that were given, checked for what no template may be.
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
        refuse("subject", "holds a control character, which a header may not".into());
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

/// Renders a part without any field, to find what is wrong for everybody: unknown filters and functions,
/// endless loops. What fails for want of fields is no problem.
fn try_out(environment: &Environment<'static>, part: &'static str) -> Option<TemplateProblem> {
    let mut lenient = environment.clone();
    lenient.set_undefined_behavior(UndefinedBehavior::Chainable);
    let error = lenient.get_template(part).ok()?.render(()).err()?;
    let certain = matches!(
        error.kind(),
        ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction
            | ErrorKind::TemplateNotFound
            | ErrorKind::BadInclude
            | ErrorKind::OutOfFuel
    );
    certain.then(|| problem(part, &error))
}

fn problem(part: &'static str, error: &Error) -> TemplateProblem {
    TemplateProblem {
        part,
        line: error.line().and_then(|line| u32::try_from(line).ok()),
        message: describe(error),
    }
}

/// Without what the template engine brings along, such as `range`.
fn used(environment: &Environment<'static>, part: &str) -> BTreeSet<String> {
    let globals: BTreeSet<&str> = environment.globals().map(|(name, _)| name).collect();
    environment
        .get_template(part)
        .map(|template| template.undeclared_variables(false))
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !globals.contains(name.as_str()) && name != placeholder::NAME)
        .collect()
}
