//! The table of the admin API: each route with its role, its handler and its help text.

use std::sync::Arc;

use axum::routing::{self, MethodRouter};

use super::{action_routes::PlainAction, api::Api};
use crate::{
    domain::Role,
    http::{
        action_routes, audit_routes, delivery_routes, denylist_routes, event_routes, log_routes,
        operation_routes, profile_routes, recurrence_routes, statistics_routes, store_routes,
        token_routes,
    },
    send::operate::Control,
};

/// A route as `docs/reference/api.md` lists it.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The HTTP method in lower case.
    pub method: &'static str,
    /// The path, with its variable parts in braces.
    pub path: &'static str,
    /// The role that the route needs. Without a role the route is open to everybody who reaches
    /// the listener.
    pub role: Option<Role>,
    /// One line that says what the route does.
    pub help: &'static str,
}

macro_rules! routes {
    ($($method:ident $path:literal $role:expr, $handler:expr, $help:literal;)*) => {
        /// All routes.
        pub const ROUTES: &[Route] = &[$(Route {
            method: stringify!($method),
            path: $path,
            role: $role,
            help: $help,
        }),*];

        /// The handler of a route of the table.
        pub(super) fn handler(route: &Route) -> MethodRouter<Arc<Api>> {
            match (route.method, route.path) {
                $((stringify!($method), $path) => routing::$method($handler),)*
                _ => MethodRouter::new(),
            }
        }
    };
}

const PREPARE: Option<Role> = Some(Role::PrepareDeliveries);
const START: Option<Role> = Some(Role::StartDeliveries);
const ADMINISTRATION: Option<Role> = Some(Role::Administration);
const MONITORING: Option<Role> = Some(Role::Monitoring);

routes! {
    post "/api/v1/deliveries" PREPARE, delivery_routes::create,
        "create a delivery";
    get "/api/v1/deliveries" MONITORING, delivery_routes::list,
        "list deliveries, newest first: `offset`, `limit`";
    get "/api/v1/deliveries/{id}" MONITORING, delivery_routes::read,
        "a delivery: definition, state, checks, plan, counts, KPIs";
    put "/api/v1/deliveries/{id}" PREPARE, delivery_routes::change,
        "replace the definition; the delivery goes back to `editing`";
    delete "/api/v1/deliveries/{id}" MONITORING, delivery_routes::delete,
        "delete a delivery with its audience and logs; its audit log stays (needs \
         `prepare_deliveries`; after the release it needs `administration`)";
    put "/api/v1/deliveries/{id}/audience" PREPARE, delivery_routes::upload,
        "stream the audience, `application/x-ndjson` or `text/csv`";
    post "/api/v1/deliveries/{id}/prepare" PREPARE, action_routes::prepare,
        "prepare the delivery: checks, exclusions, chunks, digest";
    post "/api/v1/deliveries/{id}/confirm" START, action_routes::confirm,
        "confirm the prepared delivery that `digest` names";
    post "/api/v1/deliveries/{id}/approve" START, action_routes::approve,
        "approve the prepared delivery that `digest` names, where two sign-offs are needed";
    post "/api/v1/deliveries/{id}/unschedule" START, action_routes::plain(PlainAction::Unschedule),
        "withdraw the confirmation of a scheduled delivery";
    post "/api/v1/deliveries/{id}/release" START, action_routes::plain(PlainAction::Release),
        "release the held waves";
    post "/api/v1/deliveries/{id}/pause" START,
        action_routes::plain(PlainAction::Control(Control::Pause)),
        "pause the sending";
    post "/api/v1/deliveries/{id}/resume" START,
        action_routes::plain(PlainAction::Control(Control::Resume)),
        "resume the sending";
    post "/api/v1/deliveries/{id}/stop" PREPARE,
        action_routes::plain(PlainAction::Control(Control::Stop)),
        "stop a preparation, or stop the sending for good (needs `start_deliveries`)";
    post "/api/v1/deliveries/{id}/in-doubt" START, action_routes::settle,
        "settle recipients in doubt as `sent`, `failed` or `resend`";
    post "/api/v1/deliveries/{id}/chunks/{chunk}/retry" START, action_routes::retry_chunk,
        "try a poisoned chunk again (`set_aside` lists them)";
    post "/api/v1/deliveries/{id}/copy" PREPARE, delivery_routes::copy,
        "copy a delivery under a new `name`, without its schedule; `\"audience\": true` copies \
         the audience, too";
    post "/api/v1/deliveries/{id}/proofs" PREPARE, action_routes::proofs,
        "send proofs: the messages of `recipients` to the test addresses `to`, at most 100 in \
         all; `subject_prefix`";
    put "/api/v1/deliveries/{id}/recurrence" START, recurrence_routes::set,
        "make the delivery recur: `cron`, `zone`, `lead_minutes`, `audience`, `until`, \
         `request_confirmation`";
    get "/api/v1/deliveries/{id}/recurrence" MONITORING, recurrence_routes::read,
        "the recurrence and the next ten occurrences";
    delete "/api/v1/deliveries/{id}/recurrence" START, recurrence_routes::end,
        "end the recurrence; occurrences that exist stay";
    get "/api/v1/deliveries/{id}/waves" MONITORING, log_routes::waves,
        "a page of the waves in the order of their due times: `from`, `limit`";
    get "/api/v1/deliveries/{id}/progress" MONITORING, delivery_routes::progress,
        "state, preparation, counts, KPIs";
    get "/api/v1/deliveries/{id}/events" MONITORING, event_routes::stream,
        "the progress as server-sent events, until the delivery ends";
    get "/api/v1/deliveries/{id}/log" ADMINISTRATION, log_routes::sending,
        "a page of the sending log: `from`, `limit`, `status`, `chunk`";
    get "/api/v1/deliveries/{id}/log/export" ADMINISTRATION, log_routes::export_sending,
        "the whole sending log, `format=csv` or `ndjson`";
    get "/api/v1/deliveries/{id}/exclusions" ADMINISTRATION, log_routes::exclusions,
        "a page of the exclusion log: `from`, `limit`";
    get "/api/v1/deliveries/{id}/exclusions/export" ADMINISTRATION, log_routes::export_exclusions,
        "the whole exclusion log, `format=csv` or `ndjson`";
    get "/api/v1/deliveries/{id}/archive" ADMINISTRATION, log_routes::archive,
        "the delivery with all its logs, zstd-compressed NDJSON";
    get "/api/v1/deliveries/{id}/recipients/{number}/preview" PREPARE, log_routes::preview,
        "the exact bytes of a recipient's message; while the recipient is in doubt, the links in \
         it do not count";
    post "/api/v1/deliveries/{id}/statistics" PREPARE, statistics_routes::compute,
        "compute the statistics now: opens, clicks, opt-outs";
    get "/api/v1/deliveries/{id}/statistics" MONITORING, statistics_routes::read,
        "the statistics as last computed";
    get "/api/v1/deliveries/{id}/links" MONITORING, statistics_routes::links,
        "the tracked links with the clicks on each (hot clicks)";
    post "/api/v1/deliveries/{id}/relabel" ADMINISTRATION, statistics_routes::relabel,
        "label all hits again by the rules now in force, and compute the statistics";
    get "/api/v1/deliveries/{id}/tracking" ADMINISTRATION, statistics_routes::tracking,
        "a page of the tracking log: `from`, `limit`, `kind`, `class`, `label`, `recipient`; a \
         short or empty page may continue at `next`";
    get "/api/v1/deliveries/{id}/tracking/export" ADMINISTRATION, statistics_routes::export,
        "the whole tracking log, `format=csv` or `ndjson`";
    get "/api/v1/deliveries/{id}/audit" ADMINISTRATION, audit_routes::delivery,
        "a page of the audit chain: `from`, `limit`";
    get "/api/v1/profiles/{email}/messages" ADMINISTRATION, profile_routes::messages,
        "all messages that an address got or will get, newest first: `from`, `limit`";
    get "/api/v1/audit" ADMINISTRATION, audit_routes::heads,
        "a page of the chain of heads: `from`, `limit`";
    get "/api/v1/audit/operations" ADMINISTRATION, audit_routes::operations,
        "a page of the chain of operations: `from`, `limit`";
    get "/api/v1/audit/kept-head" ADMINISTRATION, audit_routes::kept_head,
        "number and hash of the newest entry that this daemon wrote to the chain of heads";
    get "/api/v1/exclusion-causes" MONITORING, log_routes::exclusion_causes,
        "the exclusion causes with their descriptions";
    get "/api/v1/denylist/{email}" ADMINISTRATION, denylist_routes::read,
        "whether an address opted out";
    put "/api/v1/denylist/{email}" ADMINISTRATION, denylist_routes::put,
        "put an address on the denylist; deliveries that honour the denylist exclude it";
    delete "/api/v1/denylist/{email}" ADMINISTRATION, denylist_routes::remove,
        "take an address off the denylist";
    get "/api/v1/store" MONITORING, store_routes::read,
        "the store: version of its form, last heartbeat, and its hold with `since` and `why`";
    post "/api/v1/store/hold" ADMINISTRATION, store_routes::hold,
        "hold the store, because it may lack everything after `since`";
    post "/api/v1/store/release" ADMINISTRATION, store_routes::release,
        "release the hold with this `since` (needs `start_deliveries`, too)";
    get "/api/v1/tokens" ADMINISTRATION, token_routes::list,
        "the bearer tokens: name, roles, unit, end, last use, revocation";
    delete "/api/v1/tokens/{name}" ADMINISTRATION, token_routes::revoke,
        "revoke a bearer token at once, for all daemons; a new secret under the name works";
    get "/api/v1/jobs/{id}/outcome" START, operation_routes::outcome,
        "the outcome of a `ConfirmSend` job";
    get "/api/v1/queues/{queue}/dead" ADMINISTRATION, operation_routes::dead,
        "a page of the dead jobs: `from`, `limit`";
    post "/api/v1/queues/{queue}/dead/{id}/retry" ADMINISTRATION, operation_routes::retry_dead,
        "queue a dead job again";
    delete "/api/v1/queues/{queue}/dead/{id}" ADMINISTRATION, operation_routes::discard_dead,
        "discard a dead job";
    get "/metrics" None, operation_routes::metrics,
        "Prometheus metrics";
    get "/healthz" None, operation_routes::healthz,
        "200 while the process runs";
    get "/readyz" None, operation_routes::readyz,
        "200 if Redis takes writes, the workers live and the daemon is not ending, else 503";
}
