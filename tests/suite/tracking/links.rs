//! Tracked links from the preparation to the relay: the list, and the tokens in messages.

use serde_json::json;
use versand::{
    domain::{
        delivery::DeliveryId,
        tracking::{HitKind, TrackedLink},
    },
    mail::links::{LinkToken, TokenHolder},
    store::audience::SliceKind,
};

use crate::harness::{
    app::App,
    client::{audience, definition},
    people::start,
    redis::RedisServer,
};

const SETTINGS: &str = "[public]\nurl = \"https://t.shop.example/\"\n[preparation]\nchunk_size = 4\nproof_addresses = [\"*@test.example\"]";
const HTML: &str = "<body><p>Dear {{ name }},</p>\n\
    <p>see <a href=\"https://shop.example/a\">our offer</a> or <a href='https://shop.example/{{ name|urlencode }}'>yours</a>.</p>\n\
    {% for i in range(2) %}<a href='https://shop.example/{{ i }}'>{{ i }}</a>{% endfor %}\n\
    <a href='{{ unsubscribe_url }}'>Off</a></body>";

/// The holders of all tokens of a message, with the purpose of each.
fn holders(
    app: &App,
    (id, generation): (&DeliveryId, u32),
    message: &[u8],
) -> Vec<(HitKind, TokenHolder)> {
    let text = String::from_utf8(message.to_vec()).unwrap().replace("=\r\n", "");
    let mut found = Vec::new();
    for (kind, path) in [(HitKind::Open, "/o/"), (HitKind::Click, "/c/"), (HitKind::OptOut, "/u/")]
    {
        for after in text.split(&format!("https://t.shop.example{path}")).skip(1) {
            let end =
                after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap();
            let token = LinkToken::read(&after[..end], kind).unwrap();
            assert!(
                app.services
                    .reports
                    .previews
                    .recipients
                    .messages
                    .tokens
                    .signer(id, generation, token.holder)
                    .has_signed(&token),
                "{text}"
            );
            found.push((kind, token.holder));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_carries_tokens_of_its_own_recipient_and_a_proof_says_that_it_is_one() {
    let redis = RedisServer::start();
    let app = start(&redis, SETTINGS).await;
    let mut definition = definition();
    definition["content"]["html"] = json!(HTML);
    let id = app.client.create(&definition).await;
    app.client.upload(&id, audience(10)).await;
    let view = app.client.prepare(&id).await;
    assert_eq!(view["state"], "prepared", "{}", view["checks"]);
    let warnings = view["checks"]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "only the link in the loop gives a warning: {warnings:?}");
    assert!(
        warnings[0]["message"].as_str().unwrap().contains("https://shop.example/{{ i }}"),
        "{warnings:?}"
    );

    let delivery: DeliveryId = id.parse().unwrap();
    let plan = app.services.deliveries.delivery(&delivery).await.unwrap().document.plan.unwrap();
    let links: Vec<TrackedLink> = app
        .services
        .stores
        .audiences
        .slice(&delivery, SliceKind::Links(plan.generation), 0)
        .await
        .unwrap();
    let listed: Vec<_> =
        links.iter().map(|link| (link.label.as_str(), link.url.as_str(), link.merged)).collect();
    assert_eq!(
        listed,
        [
            ("our offer", "https://shop.example/a", false),
            ("yours", "https://shop.example/{{ name|urlencode }}", true)
        ]
    );

    let asked = json!({ "recipients": [9], "to": ["qa@test.example"] });
    assert_eq!(
        app.client.post(&format!("/deliveries/{id}/proofs"), &asked).await.1["proofs"][0]["outcome"],
        "accepted"
    );
    app.client.confirm(&id, &plan.digest).await;
    app.client.wait_for(&id, &["finished"]).await;
    let caught = app.catcher.as_ref().unwrap().messages();
    assert_eq!(caught.len(), 11);
    for message in &caught {
        let is_proof = message.to[0] == "qa@test.example";
        let number: u64 = if is_proof {
            9
        } else {
            message.to[0][4..].split('@').next().unwrap().parse().unwrap()
        };
        let mut holder =
            TokenHolder { preparation: plan.number, recipient: number as u32, is_proof };
        let expected = [
            HitKind::Open,
            HitKind::Click,
            HitKind::Click,
            HitKind::OptOut,
            HitKind::OptOut,
            HitKind::OptOut,
        ];
        let found = holders(&app, (&delivery, plan.generation), &message.bytes);
        if let Some(proof) = found[0].1.proof_number() {
            // the number stands for the recipient and the test address
            holder = TokenHolder::numbered_proof(plan.number, proof);
            let addresses = &app.services.stores.addresses;
            let sent = addresses.sent_proof(plan.number, proof).await.unwrap().unwrap();
            assert_eq!((u64::from(sent.recipient), is_proof), (number, true));
        }
        assert_eq!(found, expected.map(|kind| (kind, holder)));
        if !is_proof {
            let preview =
                app.client.bytes(&format!("/deliveries/{id}/recipients/{number}/preview")).await;
            assert_eq!(
                String::from_utf8(preview).unwrap(),
                String::from_utf8(message.bytes.clone()).unwrap()
            );
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracked_link_without_its_field_or_to_no_web_page_fails_the_preparation() {
    let redis = RedisServer::start();
    let app = start(&redis, SETTINGS).await;
    let mut definition = definition();
    definition["content"]["html"] = json!("<a href='{{ link }}'>x</a> {{ unsubscribe_url }}");
    let id = app.client.create(&definition).await;
    let audience = ["https://a.example", "mailto:a@b.example"]
        .map(|link| json!({"email": "ann@example.com", "name": "A", "link": link}));
    let none = json!({"email": "eve@example.com", "name": "E"});
    let mut second = audience[1].clone();
    second["email"] = json!("bob@example.com");
    app.client.upload(&id, format!("{}\n{second}\n{none}\n", audience[0])).await;
    let view = app.client.prepare(&id).await;
    let errors = view["checks"]["errors"].as_array().unwrap();
    let found: Vec<_> = errors
        .iter()
        .map(|e| (e["field"].as_str().unwrap(), e["line"].as_u64().unwrap()))
        .collect();
    assert_eq!(found, [("content.html", 2), ("audience.link", 3)], "{errors:?}");
    app.stop().await;
}
