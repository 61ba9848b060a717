//! Checks a definition before any recipient is looked at, and compiles its template.

use std::sync::Arc;

use super::{dry_run::field_of, findings::Findings, past_dues::PastDues, preparation::Preparation};
use crate::{
    domain::audience::address_mask, mail::template::Template, send::define::settings_floor,
    store::StoreError,
};

/// How many untracked links are named in warnings.
const MOST_WARNINGS: usize = 10;

/// Reports every fault of the definition. Returns the template, unless it does not compile.
///
/// # Errors
/// If the thread of the compilation breaks off.
pub(super) async fn check_definition(
    preparation: &Preparation<'_>,
    past_dues: &mut PastDues,
    findings: &mut Findings,
) -> Result<Option<Arc<Template>>, StoreError> {
    check_sender(preparation, findings);
    if preparation.settings.approvals > 1 && !preparation.settings.request_confirmation {
        findings.error(
            "settings.request_confirmation",
            None,
            "cannot be false where two sign-offs are needed",
        );
    }
    // the configuration may be stricter than when the definition was written
    let floor = settings_floor(&preparation.tools.config.now());
    if let Err(invalid) = floor.check(&preparation.definition().settings) {
        findings.error(&invalid.field, None, invalid.reason);
    }
    past_dues.check_schedule(&preparation.definition().schedule, findings);
    check_opt_out(preparation, findings);
    compile(preparation, findings).await
}

fn check_sender(preparation: &Preparation<'_>, findings: &mut Findings) {
    let sender = &preparation.definition().sender;
    let masks = &preparation.config.preparation.allowed_senders;
    let is_allowed = |email: &str| masks.iter().any(|mask| address_mask::matches(mask, email));
    for (field, email) in [
        ("sender.email", Some(&sender.email)),
        ("sender.envelope_from", sender.envelope_from.as_ref()),
    ] {
        if email.is_some_and(|email| !is_allowed(email)) {
            findings.error(field, None, "is not allowed by preparation.allowed_senders");
        }
    }
    let (field, from) = match &sender.envelope_from {
        Some(from) => ("sender.envelope_from", from),
        None => ("sender.email", &sender.email),
    };
    if preparation.tools.relays.route(from).is_none() {
        findings.error(field, None, "has a domain that no relay sends for (relays.sender_domains)");
    }
}

fn check_opt_out(preparation: &Preparation<'_>, findings: &mut Findings) {
    let (content, config) = (&preparation.definition().content, &preparation.config);
    let parts = [content.html.as_deref(), content.text.as_deref()];
    if parts.iter().flatten().any(|text| !text.to_lowercase().contains("unsubscribe")) {
        findings.warn("content", "no opt-out link was found: bulk mail needs one in every part");
    }
    // mail in the built-in catcher reaches nobody, so its links need not work
    if let Some(fault) = config.public.fault().filter(|_| !config.catcher.takes_mail) {
        findings.warn("public.url", fault);
    }
}

async fn compile(
    preparation: &Preparation<'_>,
    findings: &mut Findings,
) -> Result<Option<Arc<Template>>, StoreError> {
    let (definition, settings) = (preparation.definition(), &preparation.settings);
    let (sender, content) = (definition.sender.clone(), definition.content.clone());
    let (tracking, limit_bytes) = (settings.tracking.clone(), settings.message_limit_bytes());
    let threads = &preparation.tools.messages.templates.threads;
    let compiled = threads
        .run(move || Template::compile(&sender, &content, &tracking, limit_bytes))
        .await
        .map_err(|error| StoreError::Damaged(error.to_string()))?;
    Ok(match compiled {
        Ok(template) => {
            for url in template.untracked().iter().take(MOST_WARNINGS) {
                findings.warn(
                    "content.html",
                    &format!("the link {url:?} is not tracked: the template computes its address"),
                );
            }
            Some(Arc::new(template))
        }
        Err(problems) => {
            for problem in problems {
                let at =
                    problem.line.map(|line| format!("template line {line}: ")).unwrap_or_default();
                findings.error(
                    &field_of(definition, problem.part),
                    None,
                    format!("{at}{}", problem.message),
                );
            }
            None
        }
    })
}
