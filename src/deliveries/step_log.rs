//! The log line of each step in the life of a delivery: who, what, the new state and the figures.

use serde_json::Value;

use crate::domain::delivery::{AuditEntry, DeliveryId, DeliveryState, Document};

/// Logs a committed change: what somebody asked for (it has an audit entry), or a new state.
///
/// Other changes are bookkeeping of the daemon.
pub(super) fn log_step(
    id: &DeliveryId,
    by: &str,
    before: Option<DeliveryState>,
    after: (DeliveryState, &Document),
    entry: Option<&AuditEntry>,
) {
    let (state, document) = after;
    if entry.is_none() && before == Some(state) {
        return;
    }
    let plan = document.plan.as_ref();
    tracing::info!(
        delivery.id = %id,
        action = entry.map(|entry| entry.action.as_str()),
        principal = by,
        state = state.word(),
        recipients = document.audience.as_ref().map(|audience| audience.recipients),
        to_deliver = plan.map(|plan| plan.to_deliver),
        excluded = plan.map(|plan| plan.excluded),
        errors = (document.checks.errors_total > 0).then_some(document.checks.errors_total),
        figures = entry.and_then(|entry| figures(&entry.details)),
        "delivery: step"
    );
}

/// Details that have a field of their own.
const SHOWN: [&str; 3] = ["recipients", "to_deliver", "excluded"];

/// The other numbers among the details of an audit entry. Texts are left out: they may be long, or
/// hold what a user wrote.
fn figures(details: &Value) -> Option<String> {
    let numbers = details
        .as_object()?
        .iter()
        .filter(|(name, value)| value.is_number() && !SHOWN.contains(&name.as_str()));
    let figures: Vec<String> = numbers.map(|(name, value)| format!("{name}={value}")).collect();
    (!figures.is_empty()).then(|| figures.join(" "))
}
