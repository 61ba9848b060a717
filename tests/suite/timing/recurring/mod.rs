//! Recurring deliveries: each occurrence is created once, at its time, as the rule says.

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use versand::app::Services;
use versand::{
    deliveries::Refusal,
    domain::{
        delivery::{Delivery, DeliveryId, DeliveryState},
        schedule::occurrence_id,
    },
};

use crate::harness::{
    app::{App, idle, token},
    client::{Client, answer, audience, definition},
    direct_calls::{self, all_roles},
    eventually,
    redis::RedisServer,
};

mod requests;

/// A template with ten stored recipients, made by direct calls.
async fn template(services: &Services) -> DeliveryId {
    let id = direct_calls::create(services, definition()).await;
    direct_calls::upload(services, &id, audience(10)).await;
    id
}

async fn recurring(services: &Services, rule: Value) -> DeliveryId {
    let id = template(services).await;
    services
        .journey
        .define
        .recurrences
        .set_recurrence(&all_roles(), &id, serde_json::from_value(rule).unwrap())
        .await
        .unwrap();
    id
}

async fn next(services: &Services, id: &DeliveryId) -> Timestamp {
    services.deliveries.delivery(id).await.unwrap().document.recurrence.unwrap().next.unwrap()
}

fn minutes(n: i64) -> SignedDuration {
    SignedDuration::from_mins(n)
}

/// Creates the next occurrence as the task does when its lead time of an hour begins.
async fn create_next(services: &Services, id: &DeliveryId) -> Delivery {
    let due = next(services, id).await;
    services.journey.define.recurrences.look_at(id, due - minutes(61)).await.unwrap();
    assert_eq!(next(services, id).await, due, "the lead time has not begun");
    services.journey.define.recurrences.look_at(id, due - minutes(60)).await.unwrap();
    services.deliveries.delivery(&occurrence_id(id, due)).await.unwrap()
}

async fn actions(services: &Services, id: &DeliveryId) -> Vec<String> {
    services
        .stores
        .audits
        .delivery(id, 0, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|checked| checked.entry.action)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn occurrences_follow_the_wall_clock_across_clock_changes_and_are_prepared() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    // The nights of clock changes: 02:30 is skipped in March and repeated in October.
    let berlin =
        recurring(services, json!({ "cron": "30 2 * 3,10 SUNL", "zone": "Europe/Berlin" })).await;
    // This zone changes by half an hour.
    let lord_howe =
        recurring(services, json!({ "cron": "15 2 * 4,10 SUN#1", "zone": "Australia/Lord_Howe" }))
            .await;
    for (template, expected) in
        [(berlin, [(3, "03:30"), (10, "02:30")]), (lord_howe, [(4, "02:15"), (10, "02:45")])]
    {
        for _ in 0..3 {
            let due = next(services, &template).await;
            let occurrence = create_next(services, &template).await;
            assert_eq!(occurrence.state, DeliveryState::Preparing);
            services.journey.preparations.run(&occurrence.id).await.unwrap();
            let Delivery { state, document, .. } =
                services.deliveries.delivery(&occurrence.id).await.unwrap();
            assert_eq!(state, DeliveryState::Prepared, "{:?}", document.checks);
            assert_eq!(
                document.plan.unwrap().first_due,
                Some(due),
                "the occurrence is sent at its exact time"
            );
            let local = document.definition.schedule.local_times()[0].1.to_owned();
            let (month, time) = (local[5..7].parse::<i8>().unwrap(), &local[11..16]);
            assert!(expected.contains(&(month, time)), "{local}");
            assert_eq!(document.definition.name, format!("Autumn {} {time}", &local[..10]));
            assert_eq!(
                (document.created_by.as_str(), document.audience.unwrap().recipients),
                ("anybody", 10)
            );
        }
        // The template itself is never sent.
        let delivery = services.deliveries.delivery(&template).await.unwrap();
        assert_eq!((delivery.state, delivery.document.plan), (DeliveryState::Editing, None));
        assert_eq!(
            actions(services, &template).await,
            ["create", "upload", "recur", "occurrence", "occurrence", "occurrence"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_at_once_create_each_occurrence_once() {
    let redis = RedisServer::start();
    let (first, _state) = idle(&redis, "").await;
    let (second, _other) = idle(&redis, "").await;
    let (first, second) = (first.services(), second.services());
    let id = recurring(first, json!({ "cron": "*/10 * * * *", "zone": "Asia/Kathmandu" })).await;
    for round in 1..=10 {
        let due = next(first, &id).await;
        let now = due - minutes(60);
        let steps = [first, second, first, second, first, second]
            .map(|services| services.journey.define.recurrences.look_at(&id, now));
        for step in join_all(steps).await {
            // who was slower by a moment creates the occurrence again at the next look
            assert!(matches!(step, Ok(_) | Err(Refusal::Conflict(_))), "{step:?}");
        }
        assert_eq!(next(second, &id).await, due + minutes(10));
        assert_eq!(first.stores.deliveries.delivery_ids(0, 100).await.unwrap().len(), 1 + round);
        let occurrence = first.deliveries.delivery(&occurrence_id(&id, due)).await.unwrap();
        assert_eq!((occurrence.revision, occurrence.state), (1, DeliveryState::Preparing));
        assert_eq!(actions(first, &occurrence.id).await, ["create"]);
        first.journey.preparations.run(&occurrence.id).await.unwrap();
        assert_eq!(
            first.stores.deliveries.state(&occurrence.id).await.unwrap(),
            Some(DeliveryState::Prepared)
        );
    }
    assert_eq!(
        actions(first, &id).await.iter().filter(|action| *action == "occurrence").count(),
        10
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_creation_of_an_occurrence_is_repeated() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = recurring(services, json!({ "cron": "0 9 * * *", "zone": "Europe/Berlin" })).await;
    let due = next(services, &id).await;
    let before = services.deliveries.delivery(&id).await.unwrap();
    let recurrence = before.document.recurrence.as_ref().unwrap();
    // A daemon that has read the template creates the occurrence, and dies.
    let created = services
        .journey
        .define
        .recurrences
        .create_occurrence(&before, recurrence, due)
        .await
        .unwrap();
    assert_eq!(next(services, &id).await, due);
    // Meanwhile the template gets another audience, which counts for later occurrences.
    direct_calls::upload(services, &id, audience(3)).await;
    services.journey.define.recurrences.look_at(&id, due - minutes(60)).await.unwrap();
    assert_ne!(next(services, &id).await, due);
    services.journey.preparations.run(&created).await.unwrap();
    let occurrence = services.deliveries.delivery(&created).await.unwrap();
    assert_eq!(
        (occurrence.id.clone(), occurrence.state),
        (occurrence_id(&id, due), DeliveryState::Prepared)
    );
    assert_eq!(occurrence.document.plan.unwrap().to_deliver, 10);
    assert_eq!(actions(services, &created).await, ["create", "prepared"]);
    // A daemon that still sees the old template creates nothing more: the due occurrence exists.
    // A later one is refused, because the template has changed.
    assert_eq!(
        services
            .journey
            .define
            .recurrences
            .create_occurrence(&before, recurrence, due)
            .await
            .unwrap(),
        created
    );
    let later = next(services, &id).await;
    assert!(
        services
            .journey
            .define
            .recurrences
            .create_occurrence(&before, recurrence, later)
            .await
            .is_err()
    );
    assert_eq!(services.stores.deliveries.state(&occurrence_id(&id, later)).await.unwrap(), None);
    let second = create_next(services, &id).await;
    services.journey.preparations.run(&second.id).await.unwrap();
    assert_eq!(
        services.deliveries.delivery(&second.id).await.unwrap().document.plan.unwrap().to_deliver,
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occurrence_not_created_in_time_is_skipped_and_an_unconfirmed_one_lapses() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "[send]\ngrace_minutes = 30").await;
    let services = application.services();
    let id = recurring(
        services,
        json!({ "cron": "0 9 * * *", "zone": "Europe/Berlin", "audience": "fresh" }),
    )
    .await;
    // No daemon ran for a bit more than three days.
    let missed = next(services, &id).await;
    let now = missed + minutes(3 * 24 * 60 + 120);
    services.journey.define.recurrences.look_at(&id, now).await.unwrap();
    let ahead = next(services, &id).await;
    assert!(ahead > now && ahead - now < SignedDuration::from_hours(25));
    assert_eq!(
        services.stores.deliveries.delivery_ids(0, 100).await.unwrap(),
        std::slice::from_ref(&id),
        "no occurrence is created late"
    );
    assert_eq!(actions(services, &id).await, ["create", "upload", "recur", "skip"]);
    // Nobody uploads anything.
    let occurrence = create_next(services, &id).await;
    assert_eq!((occurrence.state, occurrence.document.audience), (DeliveryState::Editing, None));
    services.journey.define.recurrences.look_at(&occurrence.id, ahead + minutes(29)).await.unwrap();
    assert!(
        !services
            .deliveries
            .delivery(&occurrence.id)
            .await
            .unwrap()
            .document
            .occurrence
            .unwrap()
            .lapsed,
        "the occurrence can still be confirmed"
    );
    for _ in 0..3 {
        services
            .journey
            .define
            .recurrences
            .look_at(&occurrence.id, ahead + minutes(30))
            .await
            .unwrap();
    }
    assert!(
        services
            .deliveries
            .delivery(&occurrence.id)
            .await
            .unwrap()
            .document
            .occurrence
            .unwrap()
            .lapsed
    );
    assert_eq!(
        actions(services, &occurrence.id).await,
        ["create", "lapse"],
        "the lapse is logged once"
    );
    assert!(
        !services
            .stores
            .deliveries
            .recurrences_due(ahead + minutes(60))
            .await
            .unwrap()
            .contains(&occurrence.id)
    );
    // The next occurrence comes all the same.
    create_next(services, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_can_no_longer_be_sent_skips_and_gives_the_reason() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let unasked = json!({ "cron": "0 9 * * *", "zone": "UTC", "request_confirmation": false });
    let id = recurring(services, unasked).await;
    let due = next(services, &id).await;
    // From now on two sign-offs are required.
    let mut two = definition();
    two["settings"]["approvals"] = json!(2);
    services
        .journey
        .define
        .definitions
        .redefine(&all_roles(), &id, serde_json::from_value(two).unwrap())
        .await
        .unwrap();
    services.journey.define.recurrences.look_at(&id, due - minutes(60)).await.unwrap();
    assert_eq!(services.stores.deliveries.state(&occurrence_id(&id, due)).await.unwrap(), None);
    let skip = services.stores.audits.delivery(&id, 0, 100).await.unwrap().pop().unwrap().entry;
    assert_eq!(skip.action, "skip");
    assert!(skip.details["error"].as_str().unwrap().contains("sign-offs"), "{}", skip.details);
    assert_eq!(next(services, &id).await, due + minutes(24 * 60));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_sweep_finds_a_template_and_an_occurrence_that_fell_off_the_list() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = recurring(
        services,
        json!({ "cron": "0 9 * * *", "zone": "Europe/Berlin", "lead_minutes": 10_080 }),
    )
    .await;
    redis.ask("DEL versand:recurring").unwrap();
    services.journey.define.recurrences.create_due().await;
    assert_eq!(services.stores.deliveries.delivery_ids(0, 100).await.unwrap().len(), 1);
    services.journey.recover.sweep.sweep().await;
    services.journey.define.recurrences.create_due().await;
    assert_eq!(
        services.stores.deliveries.delivery_ids(0, 100).await.unwrap().len(),
        2,
        "the occurrences are created one after another"
    );
    // The sweep also finds a template that stands in the list with too late a time.
    redis.ask(&format!("ZADD versand:recurring 4000000000 {id}")).unwrap();
    services.journey.recover.sweep.sweep().await;
    services.journey.define.recurrences.create_due().await;
    assert_eq!(services.stores.deliveries.delivery_ids(0, 100).await.unwrap().len(), 3);

    redis.ask("DEL versand:recurring").unwrap();
    services.journey.recover.sweep.sweep().await;
    let far = Timestamp::now() + minutes(30 * 24 * 60);
    assert_eq!(
        services.stores.deliveries.recurrences_due(far).await.unwrap().len(),
        3,
        "the template and both occurrences"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_template_and_one_whose_recurrence_ended_make_no_more_occurrences() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let daily = json!({ "cron": "0 9 * * *", "zone": "Europe/Berlin" });
    let (ended, deleted) =
        (recurring(services, daily.clone()).await, recurring(services, daily.clone()).await);
    let first = create_next(services, &ended).await;
    let due = next(services, &ended).await;
    services.journey.define.recurrences.end_recurrence(&all_roles(), &ended).await.unwrap();
    services.journey.define.definitions.delete(&all_roles(), &deleted).await.unwrap();
    for id in [&ended, &deleted] {
        services.journey.define.recurrences.look_at(id, due).await.unwrap();
    }
    services.journey.recover.sweep.sweep().await;
    assert_eq!(
        services.stores.deliveries.recurrences_due(due).await.unwrap(),
        std::slice::from_ref(&first.id),
        "no list has them any more"
    );
    assert_eq!(
        services.stores.deliveries.delivery_ids(0, 100).await.unwrap().len(),
        2,
        "the template and its earlier occurrence"
    );
    assert!(matches!(
        services.journey.define.recurrences.end_recurrence(&all_roles(), &ended).await,
        Err(Refusal::NoRecurrence)
    ));
    assert_eq!(
        actions(services, &ended).await,
        ["create", "upload", "recur", "occurrence", "end_recurrence"]
    );
    // A new rule does not create the same occurrence twice.
    services
        .journey
        .define
        .recurrences
        .set_recurrence(&all_roles(), &ended, serde_json::from_value(daily).unwrap())
        .await
        .unwrap();
    let again = next(services, &ended).await;
    assert_eq!(occurrence_id(&ended, again), first.id);
    services.journey.define.recurrences.look_at(&ended, again - minutes(60)).await.unwrap();
    assert_eq!(actions(services, &first.id).await, ["create"]);
    assert_eq!(next(services, &ended).await, due);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_occurrence_comes_after_the_end_of_a_rule() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let until = Timestamp::now() + minutes(25 * 60);
    let id =
        recurring(services, json!({ "cron": "0 9 * * *", "zone": "UTC", "until": until })).await;
    create_next(services, &id).await;
    if let Some(second) =
        services.deliveries.delivery(&id).await.unwrap().document.recurrence.unwrap().next
    {
        assert!(second <= until);
        create_next(services, &id).await;
    }
    let document = services.deliveries.delivery(&id).await.unwrap().document;
    assert_eq!(
        (document.recurrence.as_ref().unwrap().next, document.wakes_at(DeliveryState::Editing)),
        (None, None)
    );
}
