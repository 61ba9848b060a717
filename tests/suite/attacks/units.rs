//! A principal of one unit tries to see and change what belongs to another.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use versand::{
    deliveries::Refusal,
    domain::{Principal, Role},
    http::{ROUTES, Route},
};

use crate::harness::{
    app::App,
    client::{Client, answer, audience, definition},
    people::{method, problem},
    redis::RedisServer,
};

const ALL: [&str; 3] = ["start_deliveries", "administration", "monitoring"];

/// A token with the roles of [`ALL`], in a unit if one is named. Its secret is its name.
fn token(name: &str, unit: Option<&str>) -> String {
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(name));
    let unit = unit.map(|unit| format!(", unit = \"{unit}\"")).unwrap_or_default();
    format!("{{ name = \"{name}\", sha256 = \"{hash}\", roles = {ALL:?}{unit} }}")
}

async fn start(redis: &RedisServer) -> App {
    let tokens = [
        token("north", Some("north")),
        token("north2", Some("north")),
        token("south", Some("south")),
        token("centre", None),
    ];
    App::start(redis, &format!("[auth]\ntokens = [{}]", tokens.join(", "))).await
}

async fn sent(client: &Client) -> String {
    let id = client.send(&definition(), audience(3)).await;
    client.wait_for(&id, &["finished"]).await;
    id
}

fn path(route: &Route, id: &str) -> String {
    let path = route.path.replace("{id}", id).replace("{chunk}", "0").replace("{number}", "0");
    path.strip_prefix("/api/v1").unwrap().to_owned()
}

/// The routes that are about no single delivery and that each principal of a unit may call. Tests
/// below check the creation, the list and the histories.
const OPEN_TO_UNITS: [&str; 5] = [
    "post /api/v1/deliveries",
    "get /api/v1/deliveries",
    "get /api/v1/exclusion-causes",
    "get /api/v1/jobs/{id}/outcome",
    "get /api/v1/profiles/{email}/messages",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_route_shows_or_changes_a_delivery_of_another_unit() {
    let redis = RedisServer::start();
    let app = start(&redis).await;
    let [north, south, centre] =
        ["north", "south", "centre"].map(|name| app.client.with_token(name));
    let id = sent(&north).await;
    let before = centre.get(&format!("/deliveries/{id}")).await;
    let nothing = "0000000000000000";
    for route in ROUTES.iter().filter(|route| route.role.is_some()) {
        let ask = async |client: &Client, id: &str| {
            let request = client.request(method(route), &path(route, id));
            request.header(header::CONTENT_TYPE, "application/json").body("{}").send().await
        };
        if route.path.starts_with("/api/v1/deliveries/{id}") {
            // exactly the answer for a delivery that does not exist
            let outside = ask(&south, &id).await.unwrap();
            let absent = ask(&south, nothing).await.unwrap();
            let outside = problem(outside, StatusCode::NOT_FOUND).await;
            assert_eq!(outside, problem(absent, StatusCode::NOT_FOUND).await, "{route:?}");
            assert_eq!(outside["detail"], "there is no such delivery", "{route:?}");
        } else if !OPEN_TO_UNITS.contains(&format!("{} {}", route.method, route.path).as_str()) {
            problem(ask(&south, &id).await.unwrap(), StatusCode::FORBIDDEN).await;
        }
    }
    assert_eq!(centre.get(&format!("/deliveries/{id}")).await, before, "nothing has changed");

    // the same routes for a colleague of the same unit, as far as they only read
    let colleague = app.client.with_token("north2");
    for route in ROUTES
        .iter()
        .filter(|route| route.method == "get" && route.path.starts_with("/api/v1/deliveries/{id}"))
    {
        let query = if route.path.ends_with("export") { "?format=ndjson" } else { "" };
        let path = format!("{}{query}", path(route, &id));
        let read = colleague.request(Method::GET, &path).send().await.unwrap();
        let is_absent = read.status() == StatusCode::NOT_FOUND;
        // the delivery does not recur
        assert_eq!(is_absent, route.path.ends_with("/recurrence"), "{route:?}: {}", read.status());
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_histories_have_whole_pages_of_the_own_unit() {
    let redis = RedisServer::start();
    let app = start(&redis).await;
    let [north, south, centre] =
        ["north", "south", "centre"].map(|name| app.client.with_token(name));
    let (mut own, mut all) = (Vec::new(), Vec::new());
    for i in 0..21 {
        let client = [&north, &south, &centre][i % 3];
        let id = client.create(&definition()).await;
        all.push(id.clone());
        if i % 3 == 0 {
            own.push(id);
        }
    }
    let pages = async |client: &Client, size: usize| {
        let (mut ids, mut offset) = (Vec::new(), Some(0));
        while let Some(from) = offset {
            let page = client.get(&format!("/deliveries?offset={from}&limit={size}")).await;
            let items = page["items"].as_array().unwrap();
            offset = page["next"].as_u64();
            assert!(items.len() == size || offset.is_none(), "a short page: {page}");
            ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        }
        ids
    };
    for size in [1, 2, 3, 7, 100] {
        let seen: BTreeSet<String> = pages(&north, size).await.into_iter().collect();
        assert_eq!(seen, own.iter().cloned().collect(), "pages of {size}");
    }
    let seen: BTreeSet<String> = pages(&centre, 4).await.into_iter().collect();
    assert_eq!(seen, all.iter().cloned().collect());

    let (of_north, of_south) = (sent(&north).await, sent(&south).await);
    let of = async |client: &Client| {
        let page = client.get("/profiles/user1@example.com/messages?limit=1").await;
        let items: Vec<Value> = page["items"].as_array().unwrap().clone();
        let ids: Vec<String> =
            items.iter().map(|item| item["delivery"].as_str().unwrap().to_owned()).collect();
        (ids, page["next"].as_u64())
    };
    assert_eq!(of(&north).await, (vec![of_north], None));
    assert_eq!(of(&south).await, (vec![of_south], None));
    assert_eq!(of(&centre).await.1, Some(1));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_principal_without_a_unit_names_one_and_copies_inherit_it() {
    let redis = RedisServer::start();
    let app = start(&redis).await;
    let [north, south, centre] =
        ["north", "south", "centre"].map(|name| app.client.with_token(name));
    let of = |unit: &str| {
        let mut definition = definition();
        definition["unit"] = unit.into();
        definition
    };
    let unit = async |client: &Client, id: &str| {
        client.get(&format!("/deliveries/{id}")).await["definition"]["unit"].clone()
    };
    let (status, refused) = north.post("/deliveries", &of("south")).await;
    assert_eq!((status, &refused["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &"unit".into()));
    for bad in ["", " ", "a\nb", &"x".repeat(101)] {
        let (status, refused) = centre.post("/deliveries", &of(bad)).await;
        assert_eq!((status, &refused["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &"unit".into()));
    }
    let id = north.create(&definition()).await;
    assert_eq!(unit(&centre, &id).await, "north");
    let put = async |client: &Client, definition: &Value| {
        let request = client.request(Method::PUT, &format!("/deliveries/{id}"));
        answer(request.json(definition).send().await.unwrap()).await.0
    };
    // No principal of a unit can push a delivery to another unit, or take one from there.
    assert_eq!(put(&north, &of("south")).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(put(&south, &of("south")).await, StatusCode::NOT_FOUND);
    // a change that names no unit keeps it
    assert_eq!(put(&centre, &definition()).await, StatusCode::OK);
    assert_eq!(unit(&north, &id).await, "north");

    let copy = json!({ "name": "Copy", "audience": true });
    north.upload(&id, audience(2)).await;
    let (_, view) = centre.post(&format!("/deliveries/{id}/copy"), &copy).await;
    let copy_id = view["id"].as_str().unwrap();
    assert_eq!(unit(&north, copy_id).await, "north");
    let (_, view) = north.post(&format!("/deliveries/{id}/copy"), &copy).await;
    assert_eq!(view["definition"]["unit"], "north");

    // an occurrence belongs to the unit of its template
    let cron =
        json!({ "cron": "* * * * *", "zone": "UTC", "audience": "fresh", "lead_minutes": 60 });
    let recur = north.request(Method::PUT, &format!("/deliveries/{id}/recurrence")).json(&cron);
    let (status, view) = answer(recur.send().await.unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{view}");
    let occurrence =
        crate::harness::eventually("an occurrence", crate::harness::LIMIT, async || {
            let next =
                north.get(&format!("/deliveries/{id}/recurrence")).await["upcoming"][0].clone();
            next["state"].is_string().then(|| next["id"].as_str().unwrap().to_owned())
        })
        .await;
    assert_eq!(unit(&north, &occurrence).await, "north");
    let outside = south.request(Method::GET, &format!("/deliveries/{occurrence}"));
    assert_eq!(outside.send().await.unwrap().status(), StatusCode::NOT_FOUND);

    // moved: the old unit sees it no longer
    assert_eq!(put(&centre, &of("south")).await, StatusCode::OK);
    assert_eq!(put(&north, &definition()).await, StatusCode::NOT_FOUND);
    assert_eq!(unit(&south, &id).await, "south");
    let stopped = south.request(Method::DELETE, &format!("/deliveries/{id}/recurrence"));
    assert_eq!(stopped.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_unit_confirms_nothing() {
    let redis = RedisServer::start();
    let app = start(&redis).await;
    let north = app.client.with_token("north");
    let id = north.create(&definition()).await;
    north.upload(&id, audience(1)).await;
    let digest = north.prepare(&id).await["plan"]["digest"].as_str().unwrap().to_owned();
    // as the queue calls it, with the claims of a JWT
    let confirm = async |unit: &str| {
        let by = Principal {
            unit: Some(unit.to_owned()),
            ..Principal::new("crm/campaigns", vec![Role::StartDeliveries])
        };
        let confirmations = &app.services.journey.confirm.confirmations;
        confirmations.confirm(&by, &id.parse().unwrap(), &digest, "queue", &[]).await
    };
    assert!(matches!(confirm("south").await, Err(Refusal::NotFound)));
    assert!(matches!(confirm("North").await, Err(Refusal::NotFound)));
    assert!(confirm("north").await.is_ok());
    north.wait_for(&id, &["finished"]).await;
    app.stop().await;
}
