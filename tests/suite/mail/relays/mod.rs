//! Several relays: shares, sender domains, fail-over before the end of data and never after.

mod choice;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use versand::mail::catcher::{CatcherAction, CatcherFault, CatcherStage};

use crate::harness::{
    LIMIT,
    app::App,
    client::{audience, definition},
    daemon::Daemon,
    eventually,
    ports::ClosedPort,
    postfix::Postfix,
    redis::RedisServer,
    relay::{TestRelay, named},
};

/// The delay before every reply. It makes a delivery last long enough for a fault in its middle.
const DELAY: Duration = Duration::from_millis(1);

async fn two_relays() -> (TestRelay, TestRelay) {
    (TestRelay::start(DELAY).await, TestRelay::start(DELAY).await)
}

/// How many messages for each recipient the two relays have accepted together.
fn received(relays: [&TestRelay; 2]) -> BTreeMap<String, usize> {
    let mut received = BTreeMap::new();
    for (recipient, ids) in relays.iter().flat_map(|relay| relay.received()) {
        *received.entry(recipient).or_default() += ids.len();
    }
    received
}

fn check_everybody_once(relays: [&TestRelay; 2], recipients: usize) {
    let received = received(relays);
    assert_eq!(received.len(), recipients);
    assert!(received.values().all(|n| *n == 1), "somebody got two messages");
}

fn with_status(log: &[Value], status: &str) -> Vec<String> {
    log.iter()
        .filter(|line| line["status"] == status)
        .map(|line| line["email"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mail_is_shared_by_weight_and_counted_by_relay() {
    let (a, b) = two_relays().await;
    let relays = [a.named("a", "weight = 3"), b.named("b", "connections = 10")].concat();
    let daemon = Daemon::start(&format!("{relays}[relay]\nconnections = 12\n")).await;
    let id = daemon.client.send(&definition(), audience(4000)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    check_everybody_once([&a, &b], 4000);
    let share = a.accepted() as f64 / 4000.0;
    assert!((0.65..0.85).contains(&share), "the share is {share}, three quarters are wanted");

    let of = async |name: &str, relay: &str| {
        daemon.series(&format!("{name}{{relay=\"{relay}\"}}")).await
    };
    eventually("the figures of both relays", LIMIT, async || {
        let seen =
            (of("versand_relay_accepted", "a").await?, of("versand_relay_accepted", "b").await?);
        (seen == (a.accepted() as f64, b.accepted() as f64)).then_some(())
    })
    .await;
    assert_eq!(daemon.metric("versand_acceptance_difference").await, 0.0);
    assert_eq!(daemon.metric("versand_in_doubt_bound").await, f64::from((12 + 10) * 4));
    for (name, relay) in [("a", &a), ("b", &b)] {
        let (mut outcomes, accepted) = (Vec::new(), relay.accepted() as f64);
        for outcome in ["accepted", "deferred", "refused", "in_doubt", "not_started"] {
            let series =
                format!("versand_transactions_total{{relay=\"{name}\",outcome=\"{outcome}\"}}");
            outcomes.push(daemon.series(&series).await.unwrap());
        }
        // On a busy machine some transactions were not started, because a lease was about to
        // expire.
        assert_eq!(outcomes[..4], [accepted, 0.0, 0.0, 0.0]);
        let timed = format!(
            "versand_transaction_duration_seconds_count{{relay=\"{name}\",outcome=\"accepted\"}}"
        );
        assert_eq!(daemon.series(&timed).await, Some(accepted), "{outcomes:?}");
        assert_eq!(
            (of("versand_relay_up", name).await, of("versand_relay_faults", name).await),
            (Some(1.0), Some(0.0))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_domain_of_the_envelope_sender_decides_who_sends() {
    let (shop, others) = two_relays().await;
    let redis = RedisServer::start();
    let relays =
        [shop.named("shop", "sender_domains = [\"shop.example\"]"), others.named("others", "")]
            .concat();
    let app = App::start(&redis, &relays).await;
    let mut other = definition();
    other["sender"]["envelope_from"] = json!("bounces@mail.shop.example");
    for (definition, counts) in [(definition(), (120, 0)), (other.clone(), (120, 120))] {
        let id = app.client.send(&definition, audience(120)).await;
        app.client.wait_for(&id, &["finished"]).await;
        assert_eq!((shop.accepted(), others.accepted()), counts);
    }
    app.stop().await;

    // Now no relay serves the sender domain of `other`.
    let app = App::start(&redis, &shop.named("shop", "sender_domains = [\"shop.example\"]")).await;
    let id = app.client.create(&other).await;
    app.client.upload(&id, audience(3)).await;
    let view = app.client.prepare(&id).await;
    assert_eq!(view["state"], "preparation_failed");
    assert_eq!(view["checks"]["errors"][0]["field"], "sender.envelope_from", "{}", view["checks"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_delivery_without_a_relay_are_set_aside() {
    let (shop, _) = two_relays().await;
    shop.catcher.change_rules(|rules| rules.greeting = Some("421 4.3.2 not now".into()));
    let redis = RedisServer::start();
    let app = App::start(&redis, &shop.named("shop", "")).await;
    let id = app.client.send(&definition(), audience(3)).await;
    app.client.wait_for(&id, &["in_progress"]).await;
    drop(app);
    let app = App::start(&redis, &shop.named("shop", "sender_domains = [\"other.example\"]")).await;
    eventually("the chunk is set aside", LIMIT, async || {
        let view = app.client.get(&format!("/deliveries/{id}")).await;
        (view["set_aside"] == json!([0])).then_some(())
    })
    .await;
    drop(app);
}

/// The first relay fails before anything is sent. The other one takes all messages.
async fn the_other_one_sends(first: String, other: &TestRelay) {
    let redis = RedisServer::start();
    let app = App::start(&redis, &[first, other.named("other", "")].concat()).await;
    let id = app.client.send(&definition(), audience(600)).await;
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(view["counts"]["sent"], json!(600));
    let received = other.received();
    assert_eq!(received.len(), 600);
    assert!(received.values().all(|ids| ids.len() == 1));
    // The faulty relay cost no recipient a second attempt.
    let log = app.client.log(&id).await;
    assert!(log.iter().all(|line| line["attempts"] == 1), "{}", log[0]);
    let faults: Vec<u32> = app
        .services
        .journey
        .throttle_watch
        .relays
        .all()
        .map(|relay| relay.faults_in_a_row())
        .collect();
    assert!(faults[0] > 0 && faults[1] == 0, "{faults:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_relay_sends_for_one_that_refuses_connections() {
    let (first, other) = two_relays().await;
    let closed = ClosedPort::new();
    the_other_one_sends(named("first", closed.port(), "weight = 9"), &other).await;
    for greeting in ["421 4.3.2 not now", "554 5.7.1 not you", "hello?"] {
        let other = TestRelay::start(DELAY).await;
        first.catcher.change_rules(|rules| rules.greeting = Some(greeting.into()));
        the_other_one_sends(first.named("first", "weight = 9"), &other).await;
    }
    assert_eq!(first.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_relay_sends_messages_that_break_before_the_end_of_data() {
    let (first, other) = two_relays().await;
    let redis = RedisServer::start();
    let app =
        App::start(&redis, &[first.named("first", ""), other.named("other", "")].concat()).await;
    let id = app.client.send(&definition(), audience(1500)).await;
    eventually("some messages are sent", LIMIT, async || (first.accepted() > 100).then_some(()))
        .await;
    first.catcher.change_rules(|rules| {
        rules.every = Some(CatcherFault::new(CatcherStage::Data, CatcherAction::Close))
    });
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!((&view["counts"]["sent"], &view["counts"]["in_doubt"]), (&json!(1500), &json!(0)));
    check_everybody_once([&first, &other], 1500);
    let log = app.client.log(&id).await;
    assert!(
        log.iter().any(|line| line["attempts"].as_u64() > Some(1)),
        "the fault hit no transaction"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dying_relay_leaves_recipients_in_doubt_only_after_the_end_of_data() {
    let (first, other) = two_relays().await;
    let (catcher, connections) = (first.catcher.clone(), 6);
    let redis = RedisServer::start();
    let relays =
        [first.named("first", &format!("connections = {connections}")), other.named("other", "")]
            .concat();
    let app = App::start(&redis, &relays).await;
    let id = app.client.send(&definition(), audience(1500)).await;
    eventually("some messages are sent", LIMIT, async || (first.accepted() > 100).then_some(()))
        .await;
    drop(first);
    let view = app.client.wait_for(&id, &["finished"]).await;
    let doubts = with_status(&app.client.log(&id).await, "in_doubt");
    assert_eq!(view["counts"]["sent"], json!(1500 - doubts.len()));
    assert!(doubts.len() <= connections, "{} doubts", doubts.len());
    let others = other.received();
    assert!(
        doubts.iter().all(|recipient| !others.contains_key(recipient)),
        "the other relay sent them"
    );
    let firsts: Vec<String> =
        catcher.journal().into_iter().filter(|e| e.accepted).map(|e| e.recipient).collect();
    assert!(
        firsts.iter().all(|recipient| !others.contains_key(recipient)),
        "some messages were sent twice"
    );
    assert!(others.values().all(|ids| ids.len() == 1));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_to_another_relay_after_the_end_of_data() {
    for accepted in [true, false] {
        let (first, other) = two_relays().await;
        let act = CatcherFault {
            accept: accepted,
            ..CatcherFault::new(CatcherStage::End, CatcherAction::Close)
        };
        first.catcher.change_rules(|rules| rules.every = Some(act));
        let redis = RedisServer::start();
        let relays = [first.named("first", "connections = 5"), other.named("other", "")].concat();
        let app = App::start(&redis, &relays).await;
        let id = app.client.send(&definition(), audience(800)).await;
        let view = app.client.wait_for(&id, &["finished"]).await;
        let doubts = with_status(&app.client.log(&id).await, "in_doubt");
        assert!(doubts.len() >= 5, "{} doubts", doubts.len());
        assert_eq!(view["counts"]["sent"], json!(800 - doubts.len()));
        // The recipients in doubt stay in doubt: the other relay got none of them.
        let others = other.received();
        assert_eq!(others.len(), 800 - doubts.len());
        assert!(doubts.iter().all(|recipient| !others.contains_key(recipient)));
        if accepted {
            check_everybody_once([&first, &other], 800);
        } else {
            assert_eq!(first.accepted(), 0);
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_weight_0_sends_only_while_the_other_is_at_fault() {
    let (first, standby) = two_relays().await;
    let redis = RedisServer::start();
    // `idle_ms` is short, so that the connection of a probe is closed soon.
    let relays =
        [first.named("first", "idle_ms = 100"), standby.named("standby", "weight = 0")].concat();
    let app = App::start(&redis, &relays).await;
    let send = async |n: usize| {
        let id = app.client.send(&definition(), audience(n)).await;
        let view = app.client.wait_for(&id, &["finished"]).await;
        assert_eq!(view["counts"]["sent"], json!(n));
    };
    send(300).await;
    assert_eq!((first.accepted(), standby.accepted()), (300, 0));
    // The relay refuses new connections, and each message on open ones.
    first.catcher.change_rules(|rules| {
        rules.greeting = Some("421 4.3.2 not now".into());
        rules.every = Some(CatcherFault::reply(CatcherStage::Mail, "421 4.3.2 not now"));
    });
    send(300).await;
    assert_eq!((first.accepted(), standby.accepted()), (300, 300));
    first.catcher.change_rules(|rules| (rules.greeting, rules.every) = (None, None));
    eventually("the first relay is back", LIMIT, async || {
        send(2).await;
        (first.accepted() > 300).then_some(())
    })
    .await;
    let before = standby.accepted();
    send(300).await;
    assert_eq!(standby.accepted(), before);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_all_relays_are_at_fault_and_the_first_to_recover_sends() {
    let (first, other) = two_relays().await;
    for relay in [&first, &other] {
        relay.catcher.change_rules(|rules| rules.greeting = Some("421 4.3.2 not now".into()));
    }
    let redis = RedisServer::start();
    let app =
        App::start(&redis, &[first.named("first", ""), other.named("other", "")].concat()).await;
    let id = app.client.send(&definition(), audience(600)).await;
    eventually("both relays are at fault", LIMIT, async || {
        app.services
            .journey
            .throttle_watch
            .relays
            .all()
            .all(|relay| relay.faults_in_a_row() > 2)
            .then_some(())
    })
    .await;
    other.catcher.change_rules(|rules| rules.greeting = None);
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!((view["counts"]["sent"].clone(), other.received().len()), (json!(600), 600));
    check_everybody_once([&first, &other], 600);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_sends_for_a_relay_at_fault() {
    let postfix = Postfix::start();
    let redis = RedisServer::start();
    let secured =
        format!("host = \"localhost\"\ntls = \"starttls\"\nca_file = {:?}\n", postfix.ca_file());
    let named_postfix =
        format!("[[relays]]\nname = \"postfix\"\nport = {}\nweight = 0\n{secured}", postfix.port());
    let gone = ClosedPort::new();
    let app = App::start(&redis, &[named("gone", gone.port(), ""), named_postfix].concat()).await;
    let audience = "{\"email\":\"alice@inbox.test\",\"name\":\"Alice\"}\n{\"email\":\"bob@inbox.test\",\"name\":\"Bob\"}\n";
    let id = app.client.send(&definition(), audience.into()).await;
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(view["counts"]["sent"], json!(2));
    for name in ["alice", "bob"] {
        assert_eq!(postfix.mailbox(name, 1, LIMIT).len(), 1);
    }
    app.stop().await;
}
