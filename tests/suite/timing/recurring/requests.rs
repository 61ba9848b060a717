//! Recurring deliveries over HTTP: roles, refusals, and occurrences up to the last message.

use super::*;
use crate::harness::{LIMIT, app::move_waves};

async fn put(client: &Client, id: &str, rule: &Value) -> (StatusCode, Value) {
    answer(
        client
            .request(Method::PUT, &format!("/deliveries/{id}/recurrence"))
            .json(rule)
            .send()
            .await
            .unwrap(),
    )
    .await
}

async fn ask(client: &Client, method: Method, id: &str) -> (StatusCode, Value) {
    answer(client.request(method, &format!("/deliveries/{id}/recurrence")).send().await.unwrap())
        .await
}

/// A rule whose next occurrence is hours away and created at once.
fn rule(audience: &str, request_confirmation: bool) -> Value {
    let hour = (Timestamp::now() + minutes(12 * 60)).to_string()[11..13].to_owned();
    let cron = format!("30 {hour} * * *");
    json!({
        "cron": cron, "zone": "UTC", "lead_minutes": 1380, "audience": audience, "request_confirmation": request_confirmation
    })
}

async fn template(client: &Client) -> String {
    let id = client.create(&definition()).await;
    assert_eq!(client.upload(&id, audience(10)).await.0, StatusCode::OK);
    id
}

/// The id of the first occurrence to come, once it is created.
async fn created(client: &Client, template: &str) -> String {
    eventually("the occurrence", LIMIT, async || {
        let next = &ask(client, Method::GET, template).await.1["upcoming"][0];
        next["state"].is_string().then(|| next["id"].as_str().unwrap().to_owned())
    })
    .await
}

/// Makes the only wave of the delivery due now.
async fn due_now(app: &App, id: &str) {
    move_waves(&app.services, id, 1, Timestamp::now().as_second() as u32).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_audience_is_sent_to_with_and_without_a_confirmation() {
    let redis = RedisServer::start();
    let both = ["start_deliveries", "administration"];
    let app = App::start(&redis, &format!("[auth]\ntokens = [{}]", token("ann", &both))).await;
    let client = app.client.with_token("ann");
    let (unasked, asked) = (template(&client).await, template(&client).await);
    let (status, view) = put(&client, &unasked, &rule("stored", false)).await;
    assert_eq!((status, view["by"].as_str()), (StatusCode::OK, Some("ann")), "{view}");
    assert_eq!(view["upcoming"].as_array().unwrap().len(), 10);
    assert_eq!(put(&client, &asked, &rule("stored", true)).await.0, StatusCode::OK);

    let released = created(&client, &unasked).await;
    let view = client.wait_for(&released, &["scheduled"]).await;
    assert_eq!(
        (view["release"]["by"].as_str(), view["plan"]["prepared_by"].as_str()),
        (Some("ann"), Some("ann"))
    );
    assert_eq!(view["occurrence"]["of"], json!(unasked));
    let waiting = created(&client, &asked).await;
    let view = client.wait_for(&waiting, &["prepared"]).await;
    due_now(&app, &released).await;
    due_now(&app, &waiting).await;
    client.wait_for(&released, &["finished"]).await;
    assert_eq!(
        client.get(&format!("/deliveries/{waiting}")).await["state"],
        "prepared",
        "nobody has confirmed the occurrence"
    );
    assert_eq!(app.catcher.as_ref().unwrap().messages().len(), 10);
    let (status, answer) = client.confirm(&waiting, view["plan"]["digest"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    due_now(&app, &waiting).await;
    client.wait_for(&waiting, &["finished"]).await;
    assert_eq!(app.catcher.as_ref().unwrap().messages().len(), 20);
    let items = client.get(&format!("/deliveries/{released}/audit")).await["items"].clone();
    let entries: Vec<_> = items
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["action"].as_str().unwrap(), e["principal"].as_str().unwrap()))
        .collect();
    assert_eq!(entries[..2], [("create", "ann"), ("prepared", "ann")]);
    for id in [&unasked, &asked] {
        assert_eq!(
            client.get(&format!("/deliveries/{id}")).await["state"],
            "editing",
            "the template is not sent"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_audience_is_uploaded_and_prepared_with_the_right_role() {
    let redis = RedisServer::start();
    let tokens = [token("ann", &["start_deliveries"]), token("crm", &["prepare_deliveries"])];
    let app = App::start(&redis, &format!("[auth]\ntokens = [{}]", tokens.join(", "))).await;
    let [client, crm] = ["ann", "crm"].map(|name| app.client.with_token(name));
    for request_confirmation in [true, false] {
        // The template has no audience of its own.
        let id = crm.create(&definition()).await;
        let (status, view) = put(&client, &id, &rule("fresh", request_confirmation)).await;
        assert_eq!(status, StatusCode::OK, "{view}");
        let occurrence = created(&crm, &id).await;
        assert_eq!(client.get(&format!("/deliveries/{occurrence}")).await["state"], "editing");
        assert_eq!(crm.upload(&occurrence, audience(4)).await.0, StatusCode::OK);
        let prepare = format!("/deliveries/{occurrence}/prepare");
        if request_confirmation {
            let view = crm.prepare(&occurrence).await;
            assert_eq!(
                (view["state"].as_str(), &view["plan"]["to_deliver"]),
                (Some("prepared"), &json!(4))
            );
        } else {
            let (status, problem) = crm.post(&prepare, &json!({})).await;
            assert_eq!(
                (status, problem["role"].as_str()),
                (StatusCode::FORBIDDEN, Some("start_deliveries"))
            );
            let revision =
                client.get(&format!("/deliveries/{occurrence}")).await["revision"].clone();
            assert_eq!(client.prepare_revision(&occurrence, &revision).await, StatusCode::ACCEPTED);
            let view = client.wait_for(&occurrence, &["scheduled"]).await;
            assert_eq!(view["release"]["by"], "ann");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_start_role_sets_a_recurrence_or_changes_a_template_that_nobody_confirms() {
    let redis = RedisServer::start();
    let tokens = [
        token("ann", &["start_deliveries"]),
        token("crm", &["prepare_deliveries"]),
        token("eye", &["monitoring"]),
    ];
    let app = App::start(&redis, &format!("[auth]\ntokens = [{}]", tokens.join(", "))).await;
    let [client, crm, eye] = ["ann", "crm", "eye"].map(|name| app.client.with_token(name));
    let id = template(&crm).await;
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(ask(&client, method, &id).await.0, StatusCode::NOT_FOUND);
    }
    let far = json!({ "cron": "0 9 1 1 *", "zone": "UTC", "request_confirmation": false });
    for other in [&crm, &eye] {
        let (status, problem) = put(other, &id, &far).await;
        assert_eq!(
            (status, problem["role"].as_str()),
            (StatusCode::FORBIDDEN, Some("start_deliveries"))
        );
    }
    assert_eq!(put(&client, &id, &far).await.0, StatusCode::OK);
    assert_eq!(ask(&eye, Method::GET, &id).await.1["by"], "ann");
    assert_eq!(ask(&crm, Method::DELETE, &id).await.0, StatusCode::FORBIDDEN);

    // If no person confirms the occurrences, only the start role may change the template.
    let redefine = async |client: &Client| {
        let request = client.request(Method::PUT, &format!("/deliveries/{id}")).json(&definition());
        answer(request.send().await.unwrap()).await
    };
    let (status, problem) = redefine(&crm).await;
    assert_eq!(
        (status, problem["role"].as_str()),
        (StatusCode::FORBIDDEN, Some("start_deliveries"))
    );
    assert_eq!(crm.upload(&id, audience(1)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(redefine(&client).await.0, StatusCode::OK);
    assert_eq!(client.upload(&id, audience(1)).await.0, StatusCode::OK);
    let asking = json!({ "cron": "0 9 1 1 *", "zone": "UTC" });
    assert_eq!(put(&client, &id, &asking).await.0, StatusCode::OK);
    assert_eq!(redefine(&crm).await.0, StatusCode::OK);
    assert_eq!(crm.upload(&id, audience(2)).await.0, StatusCode::OK);

    assert_eq!(ask(&client, Method::DELETE, &id).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ask(&client, Method::GET, &id).await.0, StatusCode::NOT_FOUND);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meaningless_recurrence_is_refused_with_its_field() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[send]\napprovals = 2").await;
    let client = &app.client;
    let (id, empty) = (template(client).await, client.create(&definition()).await);
    let refused = async |id: &str, change: Value| {
        let mut rule = json!({ "cron": "0 9 * * MON", "zone": "Europe/Berlin" });
        rule.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, problem) = put(client, id, &rule).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{change}: {problem}");
        problem["field"].as_str().unwrap_or_else(|| panic!("{problem}")).to_owned()
    };
    for cron in ["", "0 9 * *", "0 0 9 * * MON", "99 9 * * *", "0 0 31 2 *"] {
        assert_eq!(refused(&id, json!({ "cron": cron })).await, "cron");
    }
    assert_eq!(refused(&id, json!({ "zone": "Berlin" })).await, "zone");
    assert_eq!(refused(&id, json!({ "lead_minutes": 0 })).await, "lead_minutes");
    assert_eq!(refused(&id, json!({ "until": "2020-01-01T00:00:00Z" })).await, "until");
    assert_eq!(refused(&id, json!({ "until": "2030-01-01T09:00:00" })).await, "until");
    assert_eq!(refused(&id, json!({ "audience": "old" })).await, "audience");
    assert_eq!(refused(&empty, json!({})).await, "audience");
    assert_eq!(
        refused(&id, json!({ "request_confirmation": false })).await,
        "request_confirmation"
    );
    assert_eq!(
        put(client, "0123456789abcdef", &json!({ "cron": "0 9 * * *", "zone": "UTC" })).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ask(client, Method::GET, &id).await.0,
        StatusCode::NOT_FOUND,
        "the refused recurrence is not set"
    );
    app.stop().await;
}
