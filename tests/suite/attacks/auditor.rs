//! An auditor reads everything and changes nothing.

use reqwest::{Method, StatusCode, header};
use versand::http::ROUTES;

use crate::harness::{
    app::{App, token},
    client::{audience, definition},
    people::{method, problem},
    redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_reads_every_route_and_changes_nothing() {
    let redis = RedisServer::start();
    let tokens =
        [token("ann", &["start_deliveries", "administration"]), token("eve", &["auditor"])];
    let app = App::start(&redis, &format!("[auth]\ntokens = [{}]", tokens.join(", "))).await;
    let (ann, eve) = (app.client.with_token("ann"), app.client.with_token("eve"));
    let id = ann.send(&definition(), audience(2)).await;
    ann.wait_for(&id, &["finished"]).await;
    let before = ann.get(&format!("/deliveries/{id}")).await;
    let audited = ann.get(&format!("/deliveries/{id}/audit")).await;
    for route in ROUTES.iter().filter(|route| route.role.is_some()) {
        let path = route.path.replace("{id}", &id).replace("{number}", "0").replace("{chunk}", "0");
        let path = path.replace("{email}", "user0@example.com").replace("{queue}", "steps");
        let path = path.replace("{name}", "ann");
        let path = path.strip_prefix("/api/v1").unwrap();
        let query = if path.ends_with("/export") { "?format=csv" } else { "" };
        let request = eve.request(method(route), &format!("{path}{query}"));
        if method(route) == Method::GET {
            let status = request.send().await.unwrap().status();
            // there is no recurrence, no job with the delivery's id, and no computed statistics
            let absent = ["/recurrence", "/outcome"].iter().any(|end| path.ends_with(end));
            let uncomputed = path.ends_with("/statistics") && status == StatusCode::CONFLICT;
            assert!(
                status == StatusCode::OK || uncomputed || absent && status == StatusCode::NOT_FOUND,
                "{route:?}: {status}"
            );
        } else {
            let request = request.header(header::CONTENT_TYPE, "application/json").body("{}");
            problem(request.send().await.unwrap(), StatusCode::FORBIDDEN).await;
        }
    }
    assert_eq!(ann.get(&format!("/deliveries/{id}")).await, before);
    assert_eq!(ann.get(&format!("/deliveries/{id}/audit")).await, audited);
    app.stop().await;
}
