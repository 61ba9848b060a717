//! Access to the routes of the admin API, and the answers where there is no route.

use reqwest::{Method, StatusCode, header};
use versand::http::ROUTES;

use crate::harness::{
    client::{audience, definition},
    people::{PEOPLE, method, path, principal, problem, start},
    redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_route_wants_its_token_and_its_role() {
    let redis = RedisServer::start();
    let app = start(&redis, "[auth]\nfailures_per_minute = 0").await;
    let http = reqwest::Client::new();
    for route in ROUTES {
        let url = format!("{}{}", app.client.url, path(route));
        let request = || {
            http.request(method(route), &url)
                .header(header::CONTENT_TYPE, "application/json")
                .body("{}")
        };
        let Some(role) = route.role else {
            let status = request().send().await.unwrap().status();
            assert_eq!(status, StatusCode::OK, "{} needs no token", route.path);
            continue;
        };
        let challenge =
            request().send().await.unwrap().headers().get(header::WWW_AUTHENTICATE).cloned();
        assert_eq!(challenge.unwrap(), "Bearer", "RFC 6750, 3");
        problem(request().send().await.unwrap(), StatusCode::UNAUTHORIZED).await;
        problem(request().bearer_auth("nobody").send().await.unwrap(), StatusCode::UNAUTHORIZED)
            .await;
        for (token, roles) in PEOPLE {
            let response = request().bearer_auth(token).send().await.unwrap();
            if principal(roles).may(role) {
                let status = response.status();
                assert!(
                    ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status),
                    "{token} at {route:?}: {status}"
                );
                assert!(!status.is_server_error(), "{token} at {route:?}: {status}");
            } else {
                let body = problem(response, StatusCode::FORBIDDEN).await;
                assert_eq!(body["role"], role.word(), "{token} at {route:?}");
                assert!(body["detail"].as_str().unwrap().contains(role.word()), "{body}");
            }
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_or_method_is_answered_with_a_problem() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let ask =
        async |method: Method, path: &str| app.client.request(method, path).send().await.unwrap();
    problem(ask(Method::GET, "/nothing").await, StatusCode::NOT_FOUND).await;
    for path in [
        "/deliveries/x",
        "/deliveries/%FF",
        "/deliveries/0000000000000000/recipients/%FF/preview",
        "/queues/%FF/dead",
        "/jobs/%FF/outcome",
    ] {
        problem(ask(Method::GET, path).await, StatusCode::NOT_FOUND).await;
    }
    problem(ask(Method::GET, "/queues/none/dead").await, StatusCode::NOT_FOUND).await;
    problem(ask(Method::POST, "/queues/steps/dead/x%20y/retry").await, StatusCode::NOT_FOUND).await;
    let response = ask(Method::PATCH, "/deliveries").await;
    let allowed = response
        .headers()
        .get(header::ALLOW)
        .map(|allowed| allowed.to_str().unwrap().to_owned())
        .unwrap_or_default();
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "Allow (RFC 9110, 15.5.6): {allowed:?}"
    );
    problem(response, StatusCode::METHOD_NOT_ALLOWED).await;
    for route in ROUTES {
        let response = reqwest::Client::new()
            .request(Method::PATCH, format!("{}{}", app.client.url, path(route)))
            .send()
            .await;
        problem(response.unwrap(), StatusCode::METHOD_NOT_ALLOWED).await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_to_prepare_may_stop_a_preparation_but_not_a_sending() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 10").await;
    let preparer = app.client.with_token("preparer");
    let id = preparer.create(&definition()).await;
    preparer.upload(&id, audience(2000)).await;
    let stop = format!("/deliveries/{id}/stop");
    preparer.post(&format!("/deliveries/{id}/prepare"), &serde_json::json!({})).await;
    let (status, body) = preparer.post(&stop, &serde_json::json!({})).await;
    assert_eq!((status, &body["state"]), (StatusCode::ACCEPTED, &"editing".into()), "{body}");

    app.catcher
        .as_ref()
        .unwrap()
        .change_rules(|rules| rules.delay = std::time::Duration::from_millis(20));
    let prepared = preparer.prepare(&id).await;
    let digest = prepared["plan"]["digest"].as_str().unwrap();
    let confirm = preparer.request(Method::POST, &format!("/deliveries/{id}/confirm"));
    let body = problem(
        confirm.json(&serde_json::json!({ "digest": digest })).send().await.unwrap(),
        StatusCode::FORBIDDEN,
    )
    .await;
    assert_eq!(body["role"], "start_deliveries");
    app.client.confirm(&id, digest).await;
    app.client.wait_for(&id, &["in_progress"]).await;
    let body =
        problem(preparer.request(Method::POST, &stop).send().await.unwrap(), StatusCode::FORBIDDEN)
            .await;
    assert_eq!(body["role"], "start_deliveries");
    assert_eq!(app.client.post(&stop, &serde_json::json!({})).await.0, StatusCode::ACCEPTED);
    app.client.wait_for(&id, &["stopped"]).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invented_method_is_no_metric_label() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let method = Method::from_bytes(b"MADEUP").unwrap();
    let answer = app.client.with_token("").request(method, "/deliveries").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    let metrics =
        reqwest::get(format!("{}/metrics", app.client.url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("method=\"other\"") && !metrics.contains("MADEUP"), "{metrics}");
    app.stop().await;
}
