//! Which requests are recorded in the log of operations, and as what.
//!
//! A delivery's own audit chain holds what changes the delivery. The log of operations holds the
//! rest: who reads personal data, and who changes something that is no delivery.

use axum::extract::{RawPathParams, Request};
use data_encoding::HEXLOWER;
use serde_json::{Map, Value};

use super::routes::Route;
use crate::{
    domain::{Principal, delivery::AuditAct},
    mail::address_key,
};

/// The recorded routes, and the action of each.
const RECORDED: &[(&str, &str, &str)] = &[
    ("get", "/api/v1/deliveries/{id}/log", "read_log"),
    ("get", "/api/v1/deliveries/{id}/log/export", "export_log"),
    ("get", "/api/v1/deliveries/{id}/exclusions", "read_exclusions"),
    ("get", "/api/v1/deliveries/{id}/exclusions/export", "export_exclusions"),
    ("get", "/api/v1/deliveries/{id}/tracking", "read_tracking"),
    ("get", "/api/v1/deliveries/{id}/tracking/export", "export_tracking"),
    ("get", "/api/v1/deliveries/{id}/archive", "archive"),
    ("get", "/api/v1/deliveries/{id}/recipients/{number}/preview", "preview"),
    ("post", "/api/v1/deliveries/{id}/relabel", "relabel"),
    ("post", "/api/v1/deliveries/{id}/statistics", "compute_statistics"),
    ("get", "/api/v1/profiles/{email}/messages", "read_profile"),
    ("get", "/api/v1/denylist/{email}", "read_denylist"),
    ("put", "/api/v1/denylist/{email}", "deny"),
    ("delete", "/api/v1/denylist/{email}", "allow"),
    ("post", "/api/v1/store/hold", "hold_store"),
    ("post", "/api/v1/store/release", "release_store"),
    ("delete", "/api/v1/tokens/{name}", "revoke_token"),
    ("get", "/api/v1/queues/{queue}/dead", "read_dead_jobs"),
    ("post", "/api/v1/queues/{queue}/dead/{id}/retry", "retry_dead_job"),
    ("delete", "/api/v1/queues/{queue}/dead/{id}", "discard_dead_job"),
];
/// The object of an operation on the whole store.
const STORE: &str = "store";

impl Route {
    /// The action under which requests of this route are recorded; `None`: they are not.
    pub fn recorded_action(&self) -> Option<&'static str> {
        let found =
            RECORDED.iter().find(|(method, path, _)| *method == self.method && *path == self.path);
        found.map(|(_, _, action)| *action)
    }
}

/// The entry of a request. An address stands in it as its key, as in the audit entry of a proof.
pub(super) fn act_of(
    by: &Principal,
    action: &'static str,
    params: &RawPathParams,
    request: &Request,
) -> AuditAct {
    let mut params = params.iter().map(|(name, value)| match name {
        "email" => ("address_key", key_of(value)),
        _ => (name, value.to_owned()),
    });
    let subject = params.next().map_or_else(|| STORE.to_owned(), |(_, value)| value);
    let mut details: Map<String, Value> =
        params.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    if let Some(query) = request.uri().query().filter(|query| !query.is_empty()) {
        details.insert("query".into(), query.into());
    }
    AuditAct { subject, principal: by.name.clone(), action, details: details.into() }
}

/// The key of an address, in lower-case hexadecimal.
fn key_of(address: &str) -> String {
    address_key(address)
        .map_or_else(|_| "not an address".to_owned(), |key| HEXLOWER.encode(&key.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{routes::ROUTES, unit_scope::UnitScope};

    #[test]
    fn every_recorded_route_exists() {
        let recorded = ROUTES.iter().filter(|route| route.recorded_action().is_some()).count();
        assert_eq!(recorded, RECORDED.len());
    }

    #[test]
    fn each_change_is_recorded_here_or_in_the_chain_of_a_delivery() {
        for route in ROUTES.iter().filter(|route| route.method != "get") {
            let has_a_chain =
                route.unit_scope() == UnitScope::OneDelivery || route.path == "/api/v1/deliveries";
            assert!(has_a_chain || route.recorded_action().is_some(), "{}", route.path);
        }
    }
}
