//! Single steps on a store that may be behind: none of them moves anything.

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::json;
use versand::{
    app::Services,
    clock::unix_now,
    domain::{
        Principal,
        delivery::{DeliveryId, DeliveryState, ExpectedRevisions},
        schedule::WaveState,
    },
    identity::{CONFIRM_SEND, Claims},
    queue::{JobError, ReceivedJob},
    store::hold::HoldReason,
};

use crate::harness::{
    app::idle,
    client::{audience, definition},
    direct_calls::{all_roles, confirm, create, prepare, prepared, started, upload},
    redis::RedisServer,
};

const SECRET: &str = "a secret that is long enough: 32 bytes and more";

async fn hold(services: &Services) -> u32 {
    let since = unix_now() - 3600;
    services.stores.holds.hold(since, HoldReason::ByHand, unix_now()).await.unwrap();
    since
}

async fn state(services: &Services, id: &DeliveryId) -> DeliveryState {
    services.stores.deliveries.state(id).await.unwrap().unwrap()
}

async fn pending(services: &Services, id: &DeliveryId) -> (u64, u64) {
    let counts = services.stores.ledgers.counts(id).await.unwrap();
    (counts.pending, counts.in_doubt)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_moves_a_held_store() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "[preparation]\nchunk_size = 5\n").await;
    let services = application.services();
    let begun = started(services, 12).await;
    let (waiting, digest) = prepared(services, 3).await;
    confirm(services, &waiting, &digest).await;
    hold(services).await;
    let journey = &services.journey;
    // The jobs, the ticks and the repairs of the daemon run these steps.
    for chunk in 0..3 {
        journey.chunks.send_chunk(&begun, chunk).await.unwrap();
    }
    journey.release.starts.start(&waiting).await.unwrap();
    assert!(journey.release.due_waves.release_due().await);
    assert!(journey.define.recurrences.create_due().await);
    journey.recover.reconciler.reconcile().await.unwrap();
    journey.recover.finishes.finish(&begun).await.unwrap();
    assert!(journey.operate.retention.run().await);
    assert_eq!(pending(services, &begun).await, (12, 0));
    assert_eq!(state(services, &waiting).await, DeliveryState::StartPending);
    // no lease was taken
    let headers = services.stores.ledgers.headers(&begun, &[0, 1, 2]).await.unwrap();
    assert!(headers.iter().all(|header| (header.owner, header.epoch) == (0, 0)), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_secures_what_had_started_and_holds_what_had_not() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "[preparation]\nchunk_size = 5\n").await;
    let services = application.services();
    let mut resending = definition();
    resending["settings"]["in_doubt"] = json!("resend");
    let begun = create(services, resending).await;
    upload(services, &begun, audience(12)).await;
    let digest = prepare(services, &begun).await.document.plan.unwrap().digest;
    confirm(services, &begun, &digest).await;
    services.journey.release.starts.start(&begun).await.unwrap();
    let (waiting, digest) = prepared(services, 3).await;
    confirm(services, &waiting, &digest).await;
    let since = hold(services).await;
    let held_store = &services.journey.operate.held_store;
    let released = held_store.release(&all_roles(), since).await.unwrap();
    assert_eq!((released.deliveries, released.in_doubt, released.held_waves), (2, 12, 1));
    assert_eq!(pending(services, &begun).await, (0, 12));
    let delivery = services.deliveries.delivery(&begun).await.unwrap();
    assert!(delivery.document.plan.unwrap().holds_in_doubt);
    let entry = services.stores.audits.delivery(&begun, 0, 100).await.unwrap().pop().unwrap().entry;
    assert_eq!((entry.action.as_str(), entry.principal.as_str()), ("release_store", "anybody"));
    assert_eq!(entry.details["in_doubt"], 12);

    // confirmed and not started: nothing says who was sent to, so a person releases the wave
    let waves = async || {
        let plan = services.deliveries.delivery(&waiting).await.unwrap().document.plan.unwrap();
        services.stores.schedules.waves(&waiting, &plan).await.unwrap()
    };
    assert_eq!(waves().await[0].state, WaveState::Held);
    services.journey.release.starts.start(&waiting).await.unwrap();
    assert_eq!(state(services, &waiting).await, DeliveryState::InProgress);
    services.journey.recover.reconciler.reconcile().await.unwrap();
    assert_eq!(pending(services, &waiting).await, (3, 0));
    assert_eq!(waves().await[0].state, WaveState::Held);
    let due_waves = &services.journey.release.due_waves;
    due_waves.release_held(&all_roles(), &waiting, None).await.unwrap();
    assert!(waves().await[0].state.is_released());
    // a second release of the same hold is refused
    assert!(held_store.release(&all_roles(), since).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_signed_before_the_release_confirms_nothing() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, SECRET).unwrap();
    let settings = format!(
        "[auth]\njwt_keys = [{{ issuer = \"crm\", algorithm = \"HS256\", key_file = {key:?}, \
         roles = [\"start_deliveries\"] }}]\n"
    );
    let (application, _state) = idle(&redis, &settings).await;
    let services = application.services();
    let (id, digest) = prepared(services, 3).await;
    let job = |issued: u64| {
        let claims = Claims {
            iss: "crm".into(),
            sub: "campaigns".into(),
            aud: "versand".into(),
            exp: issued + 600,
            iat: issued,
            jti: Some(format!("{issued}")),
            roles: vec![versand::domain::Role::StartDeliveries],
            unit: None,
            action: Some(CONFIRM_SEND.into()),
            delivery: Some(id.to_string()),
            digest: Some(digest.clone()),
        };
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = encode(&Header::default(), &claims, &key).unwrap();
        let payload = json!({ "delivery": id.to_string(), "digest": digest, "token": token });
        ReceivedJob { id: "job".into(), payload: payload.to_string().into_bytes(), attempt: 1 }
    };
    let from_queue = &services.journey.confirm.from_queue;
    // the store was restored: the job in it may have been carried out since the backup
    let now = get_current_timestamp();
    let since = hold(services).await;
    let refused = from_queue.confirm_send(job(now)).await.unwrap_err();
    assert!(matches!(&refused, JobError::Abort(why) if why.contains("held")), "{refused}");
    services.journey.operate.held_store.release(&all_roles(), since).await.unwrap();
    let refused = from_queue.confirm_send(job(now)).await.unwrap_err();
    assert!(matches!(&refused, JobError::Abort(why) if why.contains("before")), "{refused}");
    assert_eq!(state(services, &id).await, DeliveryState::Prepared);
    // a token of a later second; the daemon allows clocks to differ by a minute
    from_queue.confirm_send(job(now + 30)).await.unwrap();
    assert_eq!(state(services, &id).await, DeliveryState::StartPending);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_that_needs_no_confirmation_is_not_confirmed_by_a_held_store() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let mut unasked = definition();
    unasked["settings"]["request_confirmation"] = json!(false);
    unasked["schedule"] = json!({ "type": "at", "at": "2031-02-03T04:05:06", "zone": "UTC" });
    let id = create(services, unasked).await;
    upload(services, &id, audience(3)).await;
    hold(services).await;
    let revision = services.deliveries.delivery(&id).await.unwrap().revision;
    let expects = Some(ExpectedRevisions::OneOf(vec![revision]));
    let anybody = Principal { expects, ..all_roles() };
    services.journey.preparations.request(&anybody, &id, None).await.unwrap();
    services.journey.preparations.run(&id).await.unwrap();
    let delivery = services.deliveries.delivery(&id).await.unwrap();
    assert_eq!((delivery.state, delivery.document.confirmation), (DeliveryState::Prepared, None));
}
