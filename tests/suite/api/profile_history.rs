//! Profile history: every message to an address over all deliveries, with its outcome.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use versand::{
    domain::{
        audience::{AddressKey, digest_of},
        delivery::{DeliveryId, DeliveryState, Document},
        ledger::{ChunkRef, HEADER_BYTES, Ledger, Status, flags},
        tracking::tracked,
    },
    store::{CommitOutcome, DeliveryChange, addresses::RegisteredPreparation},
};

use crate::harness::{
    app::{App, token},
    client::definition,
    direct_calls::connection,
    redis::RedisServer,
};

fn named(name: &str) -> Value {
    let mut definition = definition();
    definition["name"] = name.into();
    definition
}

fn to(email: &str) -> String {
    format!("{{\"email\":\"{email}\",\"name\":\"N\"}}\n")
}

/// The whole history in pages of `limit`.
async fn history(app: &App, email: &str, limit: usize) -> Vec<Value> {
    let (mut lines, mut from) = (Vec::new(), 0);
    loop {
        let page =
            app.client.get(&format!("/profiles/{email}/messages?from={from}&limit={limit}")).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        lines.extend(items.clone());
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => return lines,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_an_address_has_its_attempted_and_scheduled_messages_only() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let sent =
        client.send(&named("First, sent"), to("Ann@Büro.example") + &to("other@example.com")).await;
    client.wait_for(&sent, &["finished"]).await;
    let refused = client
        .send(&named("Refused"), to("other@example.com") + &to("refuse-ann@example.com"))
        .await;
    client.wait_for(&refused, &["finished"]).await;
    let mut later = named("Later");
    later["schedule"] = json!({ "type": "at", "at": "2031-02-03T04:05:06", "zone": "UTC" });
    let scheduled = client.send(&later, to("ann@xn--bro-hoa.example")).await;
    // Three deliveries are not in the history. The first is not confirmed. The second is an SMTP
    // test. The third is prepared again for another address.
    let prepared = client.create(&named("Prepared")).await;
    client.upload(&prepared, to("ann@büro.example")).await;
    client.prepare(&prepared).await;
    let mut test = named("Test");
    test["settings"]["smtp_test"] = true.into();
    let test = client.send(&test, to("ann@büro.example")).await;
    client.wait_for(&test, &["finished"]).await;
    let abandoned = client.create(&named("Abandoned")).await;
    client.upload(&abandoned, to("ann@büro.example")).await;
    client.prepare(&abandoned).await;
    client.upload(&abandoned, to("other@example.com")).await;
    let view = client.prepare(&abandoned).await;
    client.confirm(&abandoned, view["plan"]["digest"].as_str().unwrap()).await;
    client.wait_for(&abandoned, &["finished"]).await;

    // The remains of a crashed preparation that never came to a plan.
    let registered = RegisteredPreparation {
        delivery: sent.parse().unwrap(),
        generation: 9,
        chunk_size: 500,
        has_fatigue_rule: false,
        name: "Lost".into(),
    };
    let number = app.services.stores.addresses.number_preparation(&registered).await.unwrap();
    let ann = AddressKey::of(digest_of("ann@xn--bro-hoa.example"));
    app.services.stores.addresses.note_messages(number, vec![(ann, 0)]).await.unwrap();

    let lines = history(&app, "ANN@b%C3%BCro.example", 100).await;
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (line["delivery"].as_str().unwrap(), line["name"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [(scheduled.as_str(), "Later"), (sent.as_str(), "First, sent")]);
    assert_eq!(
        (&lines[0]["status"], &lines[0]["at"]),
        (&json!("pending"), &json!("2031-02-03T04:05:06Z"))
    );
    let log = client.log(&sent).await;
    let own = log.iter().find(|line| line["email"] == "Ann@Büro.example").unwrap();
    for field in ["recipient", "status", "attempts", "at", "failure_type", "failure_reason"] {
        assert_eq!(lines[1][field], own[field], "{field}");
    }
    let lines = history(&app, "refuse-ann@example.com", 100).await;
    assert_eq!(
        (lines.len(), &lines[0]["recipient"], &lines[0]["status"]),
        (1, &json!(1), &json!("failed"))
    );
    assert_eq!((&lines[0]["failure_type"], &lines[0]["attempts"]), (&json!("hard"), &json!(1)));

    // The ledger stores hits and bounces. This writes three hits into a record.
    let mut set = ::redis::cmd("SETRANGE");
    let bits = tracked::HUMAN_CLICK | tracked::MACHINE_OPEN | tracked::OPT_OUT;
    set.arg(format!("versand:{{{refused}}}:ledger:0")).arg(HEADER_BYTES + 16 + 13).arg(&[bits][..]);
    let _: usize = set.query_async(&mut connection(&redis).await).await.unwrap();
    let line = &history(&app, "refuse-ann@example.com", 100).await[0];
    assert_eq!(line["opened"], json!({ "human": true, "machine": true, "apple_proxy": false }));
    assert_eq!(line["clicked"], json!({ "human": true, "machine": false }));
    assert_eq!(
        (&line["mirror"], &line["opted_out"], &line["bounced"]),
        (&json!(false), &json!(true), &json!(false))
    );

    assert!(history(&app, "nobody@example.com", 100).await.is_empty());
    assert_eq!(history(&app, "other@example.com", 100).await.len(), 3);
    client
        .request(Method::DELETE, &format!("/deliveries/{sent}"))
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    assert_eq!(
        history(&app, "ann@b%C3%BCro.example", 100).await.len(),
        1,
        "the entry is removed with its delivery"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_needs_its_role_and_an_address() {
    let redis = RedisServer::start();
    let roles =
        [token("admin", &["administration"]), token("upstream", &["start_deliveries"])].join(", ");
    let app = App::start(&redis, &format!("[auth]\ntokens = [{roles}]")).await;
    let ask = async |token: &str, email: &str| {
        let path = format!("/profiles/{email}/messages");
        app.client.with_token(token).request(Method::GET, &path).send().await.unwrap().status()
    };
    assert_eq!(ask("upstream", "ann@example.com").await, StatusCode::FORBIDDEN);
    assert_eq!(ask("admin", "ann@example.com").await, StatusCode::OK);
    assert_eq!(ask("admin", "ann").await, StatusCode::UNPROCESSABLE_ENTITY);
    app.stop().await;
}

/// Writes a delivery that was sent to one address. The steps are bypassed, because the test needs
/// more than a thousand such deliveries.
async fn written(app: &App, n: u32, address: &str) -> DeliveryId {
    let (stores, mut bytes) = (&app.services.stores, [0; 10]);
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    let id = DeliveryId::from_random(bytes);
    let registered = RegisteredPreparation {
        delivery: id.clone(),
        generation: 1,
        chunk_size: 500,
        has_fatigue_rule: false,
        name: format!("Delivery number {n}"),
    };
    let number = stores.addresses.number_preparation(&registered).await.unwrap();
    stores
        .addresses
        .note_messages(number, vec![(AddressKey::of(digest_of(address)), 501)])
        .await
        .unwrap();
    let mut ledger = Ledger::new(2).bytes().to_vec();
    let record = HEADER_BYTES + 16;
    (ledger[record], ledger[record + 1], ledger[record + 3]) =
        (Status::Sent as u8, 1, flags::ACCEPTED);
    ledger[record + 9..record + 13].copy_from_slice(&(1_800_000_000 + n).to_be_bytes());
    let at = ChunkRef { delivery: id.clone(), chunk: 1 };
    stores.ledgers.create_ledger(&at, &Ledger::parse(ledger).unwrap()).await.unwrap();
    let definition = serde_json::from_value(definition()).unwrap();
    let document = Document::new(definition, "test", jiff::Timestamp::now());
    let change = DeliveryChange {
        id: &id,
        revision: 0,
        state: DeliveryState::Finished,
        document: &document,
        entry: None,
        once: &[],
    };
    assert_eq!(
        stores.deliveries.commit(&change).await.unwrap(),
        CommitOutcome::Done { revision: 1 }
    );
    let mut plan = ::redis::cmd("HSET");
    let () = plan
        .arg(format!("versand:{{{id}}}:delivery"))
        .arg("planned")
        .arg(1)
        .query_async(&mut stores.redis.connection())
        .await
        .unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_deliveries_are_in_one_history_newest_first() {
    // The test makes thousands of writes. None of them needs to survive a crash.
    let redis = RedisServer::start_with(&["--appendfsync", "everysec"]);
    let app = App::start(&redis, "").await;
    let mut ids = Vec::new();
    for n in 0..1000 {
        ids.push(written(&app, n, "ann@example.com").await.to_string());
        if n % 10 == 0 {
            written(&app, 5000 + n, &format!("other{n}@example.com")).await;
        }
    }
    ids.reverse();
    let lines = history(&app, "ann@example.com", 300).await;
    let seen: Vec<&str> = lines.iter().map(|line| line["delivery"].as_str().unwrap()).collect();
    assert_eq!(seen, ids);
    assert_eq!(
        (&lines[0]["name"], &lines[0]["recipient"], &lines[0]["status"]),
        (&json!("Delivery number 999"), &json!(501), &json!("sent"))
    );
    drop(app);
}
