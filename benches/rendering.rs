//! The time to render and compose a message, compared with lettre's builder alone.
//!
//! Run it with `cargo bench --bench rendering`.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a benchmark prints, and fails by a panic

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use lettre::message::{Mailbox, Message, MultiPart};
use serde_json::json;
use versand::{
    domain::{
        audience::Recipient,
        delivery::{Content, Sender, Tracking},
    },
    mail::template::{MessageStamp, Template},
};

const ROUNDS: u32 = 10_000;

fn each(mut round: impl FnMut() -> Vec<u8>) -> Duration {
    let started = Instant::now();
    for _ in 0..ROUNDS {
        black_box(round());
    }
    started.elapsed() / ROUNDS
}

fn main() {
    let paragraph = "<p>Dear {{ name }} of {{ city }}, your order {{ id }} of {{ day }} is <b>ready</b>: {{ link }}</p>\n";
    let rest = "<p class=\"body\">A paragraph that says the same to everybody, with a <a href=\"https://shop.example/a\">link</a>.</p>\n";
    let html = format!("<html><body>{paragraph}{}</body></html>", rest.repeat(27));
    let fields = json!({"name": "Jane", "city": "Köln", "id": 4711, "day": "Monday", "link": "https://shop.example/o?id=1"});
    let sender = Sender {
        name: Some("Bücher".into()),
        email: "news@shop.example".into(),
        reply_to: None,
        envelope_from: None,
    };
    let content =
        Content { subject: "Your order {{ id }}".into(), html: Some(html.clone()), text: None };
    let template = Template::compile(&sender, &content, &Tracking::default(), 512 * 1024).unwrap();
    let to = Recipient {
        line: 1,
        email: "jane.doe@example.org".into(),
        fields: serde_json::from_value(fields).unwrap(),
    };
    let stamp = MessageStamp {
        date: "2026-11-23T14:50:01Z".parse().unwrap(),
        message_id: "d1.c2.r3@shop.example".into(),
        boundary: "d1c2r3".into(),
        signer: None,
    };
    let message = template.render(&to, &stamp).unwrap();
    let ours = each(|| template.render(&to, &stamp).unwrap());

    // The text and HTML parts keep `{{ name }}` and the like: the builder merges no fields.
    let text = html2text::from_read(html.as_bytes(), 1000).unwrap();
    let lettre = each(|| {
        let from: Mailbox = "Bücher <news@shop.example>".parse().unwrap();
        let to: Mailbox = "jane.doe@example.org".parse().unwrap();
        let bodies = MultiPart::alternative_plain_html(text.clone(), html.clone());
        Message::builder()
            .from(from)
            .to(to)
            .subject("Your order 4711")
            .multipart(bodies)
            .unwrap()
            .formatted()
    });
    println!(
        "{} bytes: template and message {ours:?}, lettre's builder alone {lettre:?}",
        message.len()
    );
}
