//! Fatigue: nobody gets more messages than the rule allows.
//!
//! This holds whichever daemon sends, and whenever. A delivery without a rule is exempt.

mod late_exclusion;

use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};
use versand::{
    app::Services,
    clock::unix_now,
    config::Config,
    domain::{
        audience::{AddressKey, ExclusionCause, FatigueRule, Recipient, digest_of},
        delivery::{Delivery, DeliveryId},
        ledger::{ChunkRef, Status},
    },
    send::operate::Control,
    store::{
        addresses::RegisteredPreparation,
        audience::{SliceKind, ndjson},
        chunks::{Batch, Claim, Lease, LeaseVerdict, Report, Taken, TakeoverGrounds},
    },
};

use crate::harness::{
    LIMIT,
    app::{App, idle},
    client::definition,
    direct_calls::{self, all_roles, connection},
    eventually,
    redis::RedisServer,
};

const DAY: u32 = 86_400;
/// The rule: one message in seven days.
const ONE_IN_SEVEN_DAYS: &str = "[fatigue]\nmessages = 1\n[overrides]\nfatigue = true";

/// An audience of these addresses.
fn audience_of(emails: &[&str]) -> String {
    emails.iter().map(|email| format!("{}\n", json!({ "email": email, "name": "N" }))).collect()
}

/// A definition. `fatigue` may be null. `after` is in seconds; 0 means at once.
fn definition_with(fatigue: Value, after: i64) -> Value {
    let mut definition = definition();
    if !fatigue.is_null() {
        definition["settings"]["fatigue"] = fatigue;
    }
    if after > 0 {
        let at = Timestamp::from_second(i64::from(unix_now()) + after)
            .unwrap()
            .in_tz("UTC")
            .unwrap()
            .datetime();
        definition["schedule"] = json!({ "type": "at", "at": at.to_string(), "zone": "UTC" });
    }
    definition
}

/// Prepares a delivery by direct calls. The preparation may fail, for example when all recipients
/// are excluded.
async fn prepare(services: &Services, definition: Value, emails: &[&str]) -> Delivery {
    let id = direct_calls::create(services, definition).await;
    direct_calls::upload(services, &id, audience_of(emails)).await;
    direct_calls::prepare(services, &id).await
}

async fn confirm(services: &Services, delivery: &Delivery) {
    let digest = &delivery.document.plan.as_ref().unwrap().digest;
    direct_calls::confirm(services, &delivery.id, digest).await;
}

async fn send(services: &Services, id: &DeliveryId) {
    // A slow machine may need more than one job slice.
    eventually("the delivery is finished", LIMIT, async || {
        for chunk in
            0..services.deliveries.delivery(id).await.unwrap().document.plan.unwrap().chunks
        {
            services.journey.chunks.send_chunk(id, chunk).await.unwrap();
        }
        services.journey.recover.finishes.finish(id).await.unwrap();
        (services.deliveries.delivery(id).await.unwrap().state.word() == "finished").then_some(())
    })
    .await;
}

/// Prepares, confirms and sends.
async fn sent(services: &Services, definition: Value, emails: &[&str]) -> DeliveryId {
    let delivery = prepare(services, definition, emails).await;
    confirm(services, &delivery).await;
    services.journey.release.starts.start(&delivery.id).await.unwrap();
    send(services, &delivery.id).await;
    delivery.id
}

/// The recipients that a preparation excludes for fatigue.
///
/// The helper adds a recipient who is not excluded, so that the preparation does not fail.
async fn excluded_for_fatigue(
    services: &Services,
    definition: Value,
    emails: &[&str],
) -> Vec<String> {
    let delivery =
        prepare(services, definition, &[emails, &["somebody@else.example"]].concat()).await;
    let plan = delivery.document.plan.unwrap_or_else(|| panic!("{:?}", delivery.document.checks));
    let page = services.reports.exclusion_log.page(&delivery.id, 0, 100).await.unwrap();
    assert!(page.items.iter().all(|exclusion| exclusion.cause == ExclusionCause::Fatigue));
    assert_eq!(
        (plan.causes.get(&ExclusionCause::Fatigue).copied().unwrap_or(0), plan.excluded),
        (page.items.len() as u64, plan.excluded)
    );
    page.items.into_iter().map(|exclusion| exclusion.email).collect()
}

/// Sets the release time of a delivery's first wave.
async fn released_at(redis: &RedisServer, services: &Services, id: &DeliveryId, at: u32) {
    let generation =
        services.deliveries.delivery(id).await.unwrap().document.plan.unwrap().generation;
    let mut set = ::redis::cmd("SETRANGE");
    set.arg(format!("versand:{{{id}}}:waves.{generation}:0")).arg(4).arg(&at.to_be_bytes()[..]);
    let _: usize = set.query_async(&mut connection(redis).await).await.unwrap();
}

/// The numbers of messages in the index, and of preparations.
async fn indexed(redis: &RedisServer) -> (usize, usize) {
    let mut conn = connection(redis).await;
    let keys: Vec<String> =
        ::redis::cmd("KEYS").arg("versand:{messages:*").query_async(&mut conn).await.unwrap();
    let mut bytes = 0;
    for key in keys {
        bytes += ::redis::cmd("STRLEN").arg(key).query_async::<usize>(&mut conn).await.unwrap();
    }
    (
        bytes / 14,
        ::redis::cmd("HLEN").arg("versand:preparations").query_async(&mut conn).await.unwrap(),
    )
}

fn rule(messages: u32) -> Value {
    json!({ "messages": messages, "days": 7 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_counts_sent_and_scheduled_messages_only() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let ann = ["ann@example.com"];
    sent(services, definition_with(Value::Null, 0), &ann).await;
    // Exempt deliveries count for others.
    sent(services, definition_with(json!(false), 0), &ann).await;
    assert_eq!(excluded_for_fatigue(services, definition_with(rule(2), 0), &ann).await, ann);
    assert!(excluded_for_fatigue(services, definition_with(rule(3), 0), &ann).await.is_empty());
    assert!(
        excluded_for_fatigue(services, definition_with(json!(false), 0), &ann).await.is_empty()
    );
    assert!(
        excluded_for_fatigue(services, definition_with(Value::Null, 0), &ann).await.is_empty(),
        "a delivery without a rule"
    );

    // A scheduled delivery counts for later ones.
    let scheduled = prepare(services, definition_with(Value::Null, 3600), &ann).await;
    assert!(
        excluded_for_fatigue(services, definition_with(rule(3), 7200), &ann).await.is_empty(),
        "a delivery that is not confirmed does not count"
    );
    confirm(services, &scheduled).await;
    assert_eq!(excluded_for_fatigue(services, definition_with(rule(3), 7200), &ann).await, ann);
    assert!(
        excluded_for_fatigue(services, definition_with(rule(3), 60), &ann).await.is_empty(),
        "a scheduled delivery does not count for an earlier one"
    );
    // This delivery is confirmed and due at once, and has not begun.
    let waiting = prepare(services, definition_with(Value::Null, 0), &ann).await;
    confirm(services, &waiting).await;
    assert_eq!(excluded_for_fatigue(services, definition_with(rule(3), 0), &ann).await, ann);
    // Stopped: recipients that were not begun are cancelled and no longer count.
    services
        .journey
        .operate
        .controls
        .control(&all_roles(), &waiting.id, Control::Stop, None)
        .await
        .unwrap();
    services
        .journey
        .operate
        .controls
        .control(&all_roles(), &scheduled.id, Control::Stop, None)
        .await
        .unwrap();
    for when in [0, 7200] {
        assert!(
            excluded_for_fatigue(services, definition_with(rule(3), when), &ann).await.is_empty()
        );
    }
    services.journey.recover.reconciler.reconcile().await.unwrap();
    assert!(excluded_for_fatigue(services, definition_with(rule(3), 0), &ann).await.is_empty());
    assert_eq!(services.deliveries.delivery(&waiting.id).await.unwrap().state.word(), "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_counts_for_exactly_the_days_of_the_rule() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, ONE_IN_SEVEN_DAYS).await;
    let services = application.services();
    let ann = ["ann@example.com"];
    let id = sent(services, definition_with(Value::Null, 0), &ann).await;
    for (ago, expected) in [(7 * DAY, 0), (7 * DAY - 60, 1), (8 * DAY, 0), (0, 1)] {
        released_at(&redis, services, &id, unix_now() - ago).await;
        assert_eq!(
            excluded_for_fatigue(services, definition_with(Value::Null, 0), &ann).await.len(),
            expected,
            "{ago} s ago"
        );
    }
    // The days are counted back from the time for which the new delivery is scheduled.
    for (days, expected) in [(6, 1), (8, 0)] {
        assert_eq!(
            excluded_for_fatigue(
                services,
                definition_with(Value::Null, days * i64::from(DAY)),
                &ann
            )
            .await
            .len(),
            expected,
            "in {days} days"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_the_same_in_capitals_and_as_an_international_domain() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, ONE_IN_SEVEN_DAYS).await;
    let services = application.services();
    sent(services, definition_with(Value::Null, 0), &["Ann@Müller.Example", "bob@example.com"])
        .await;
    let again = ["ann@xn--mller-kva.example", "BOB@EXAMPLE.COM", "bobby@example.com"];
    assert_eq!(
        excluded_for_fatigue(services, definition_with(Value::Null, 0), &again).await,
        again[..2]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ramp_up_replaces_recipients_excluded_for_fatigue() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, ONE_IN_SEVEN_DAYS).await;
    let services = application.services();
    let addresses: Vec<String> = (0..20).map(|n| format!("r{n}@example.com")).collect();
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    sent(services, definition_with(Value::Null, 0), &all[..10]).await;
    let mut definition = definition_with(Value::Null, 0);
    let step = |share: u32, days: i64| {
        let at = Timestamp::from_second(i64::from(unix_now()) + days * i64::from(DAY))
            .unwrap()
            .in_tz("UTC")
            .unwrap();
        json!({ "share": share, "at": at.datetime().to_string() })
    };
    definition["schedule"] =
        json!({ "type": "ramp_up", "zone": "UTC", "steps": [step(20, 1), step(80, 2)] });
    let delivery = prepare(services, definition, &all).await;
    let plan = delivery.document.plan.unwrap();
    let waves = services.stores.schedules.waves(&delivery.id, &plan).await.unwrap();
    assert_eq!(
        (plan.excluded, waves.iter().map(|wave| wave.recipients).collect::<Vec<_>>()),
        (10, vec![2, 8])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_holds_each_message_once_and_no_longer_than_its_delivery() {
    let redis = RedisServer::start();
    let (application, _state) =
        idle(&redis, &format!("{ONE_IN_SEVEN_DAYS}\n[preparation]\nchunk_size = 7")).await;
    let services = application.services();
    let addresses: Vec<String> = (0..50).map(|n| format!("r{n}@example.com")).collect();
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let delivery = prepare(services, definition_with(Value::Null, 0), &all).await;
    assert_eq!(indexed(&redis).await, (50, 1));
    direct_calls::prepare(services, &delivery.id).await;
    assert_eq!(indexed(&redis).await, (50, 1), "a delivery that is prepared twice");

    // A preparation crashes in the middle: its messages are in the index but count for nobody. The
    // next preparation removes them.
    services.journey.preparations.request(&all_roles(), &delivery.id, None).await.unwrap();
    let (id, stores) = (&delivery.id, &services.stores);
    let generation = services.deliveries.delivery(id).await.unwrap().document.generation;
    let recipient = |(line, email): (u64, &&str)| Recipient {
        line,
        email: (*email).to_owned(),
        fields: serde_json::Map::new(),
    };
    let recipients: Vec<Recipient> = (1..).zip(&all[..7]).map(recipient).collect();
    stores
        .audiences
        .write_slice(id, SliceKind::Chunks(generation), 0, &ndjson(&recipients).unwrap())
        .await
        .unwrap();
    let number = stores
        .addresses
        .number_preparation(&RegisteredPreparation {
            delivery: id.clone(),
            generation,
            chunk_size: 7,
            has_fatigue_rule: true,
            name: String::new(),
        })
        .await
        .unwrap();
    let key = |email: &&str| AddressKey::of(digest_of(email));
    stores
        .addresses
        .note_messages(number, all[..7].iter().map(key).zip(0..).collect())
        .await
        .unwrap();
    assert_eq!(indexed(&redis).await, (57, 2));
    assert!(excluded_for_fatigue(services, definition_with(Value::Null, 0), &all).await.is_empty());
    services.journey.preparations.run(&delivery.id).await.unwrap();
    let prepared = services.deliveries.delivery(&delivery.id).await.unwrap();
    assert_eq!(indexed(&redis).await, (50 + 51, 2));
    confirm(services, &prepared).await;
    assert_eq!(
        excluded_for_fatigue(services, definition_with(Value::Null, 0), &all).await.len(),
        50
    );
    services.journey.release.starts.start(&delivery.id).await.unwrap();
    send(services, &delivery.id).await;
    services.journey.define.definitions.delete(&all_roles(), &delivery.id).await.unwrap();
    assert_eq!(indexed(&redis).await, (51 + 1, 2));
    assert!(
        excluded_for_fatigue(services, definition_with(Value::Null, 0), &all).await.is_empty(),
        "a deleted delivery no longer counts"
    );
    for id in services.stores.deliveries.delivery_ids(0, 100).await.unwrap() {
        services.journey.define.definitions.delete(&all_roles(), &id).await.unwrap();
    }
    assert_eq!(indexed(&redis).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_changed_after_it_was_scheduled_no_longer_counts() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, ONE_IN_SEVEN_DAYS).await;
    let services = application.services();
    let ann = ["ann@example.com"];
    let scheduled = prepare(services, definition_with(Value::Null, 3600), &ann).await;
    confirm(services, &scheduled).await;
    assert_eq!(excluded_for_fatigue(services, definition_with(Value::Null, 7200), &ann).await, ann);
    let other = serde_json::from_value(definition_with(Value::Null, 3600)).unwrap();
    services.journey.define.definitions.redefine(&all_roles(), &scheduled.id, other).await.unwrap();
    assert!(
        excluded_for_fatigue(services, definition_with(Value::Null, 7200), &ann).await.is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_name_their_field() {
    let redis = RedisServer::start();
    let app =
        App::start(&redis, "[fatigue]\nmessages = 4\ndays = 2.5\n[overrides]\nfatigue = true")
            .await;
    for bad in [
        json!(true),
        json!({ "messages": 0, "days": 7 }),
        json!({ "messages": 3, "days": 367 }),
        json!({ "messages": 3 }),
        json!(3),
    ] {
        let (status, answer) =
            app.client.post("/deliveries", &definition_with(bad.clone(), 0)).await;
        assert_eq!(
            (status, &answer["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!("settings.fatigue")),
            "{bad}: {answer}"
        );
    }
    // The rule is fixed at the preparation, and part of the digest.
    let mut digests = std::collections::BTreeSet::new();
    let own = FatigueRule { messages: 3, days: 7.0 };
    let default = FatigueRule { messages: 4, days: 2.5 };
    for (says, expected) in
        [(Value::Null, json!(default)), (rule(3), json!(own)), (json!(false), Value::Null)]
    {
        let id = app.client.create(&definition_with(says, 0)).await;
        app.client.upload(&id, audience_of(&["a@x.example"])).await;
        let view = app.client.prepare(&id).await;
        assert_eq!(view["plan"]["settings"]["fatigue"], expected);
        digests.insert(view["plan"]["digest"].as_str().unwrap().to_owned());
    }
    assert_eq!(digests.len(), 3);
    app.stop().await;
    for (bad, setting) in [
        ("messages = 1001", "fatigue.messages"),
        ("days = 0", "fatigue.days"),
        ("days = nan", "fatigue.days"),
    ] {
        assert_eq!(Config::from_toml(&format!("[fatigue]\n{bad}")).unwrap_err().setting, setting);
    }
}
