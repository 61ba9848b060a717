//! The template compiler and the renderer give an error or a message that SMTP can carry.
#![no_main]

use libfuzzer_sys::fuzz_target;
use versand::{
    domain::{
        audience::Recipient,
        delivery::{Content, Sender, Tracking},
    },
    mail::{
        links::{TokenHolder, TokenKey},
        template::{MessageStamp, Template},
    },
};

const LIMIT: usize = 64 * 1024;

/// Subject, HTML, text and one value, with NUL between them. Every merge field has that value.
fn parts(input: &str) -> Option<(Content, &str)> {
    let mut parts = input.split('\0');
    let (subject, html, text) = (parts.next()?, parts.next()?, parts.next()?);
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let content = serde_json::json!({ "subject": subject, "html": some(html), "text": some(text) });
    Some((serde_json::from_value(content).ok()?, parts.next().unwrap_or("x")))
}

fuzz_target!(|input: &str| {
    let Some((content, value)) = parts(input) else { return };
    let sender: Sender =
        serde_json::from_str(r#"{"name":"The Shop","email":"news@shop.example"}"#).unwrap();
    let (url, mirror_link) = ("https://t.shop.example".to_owned(), "In a browser".to_owned());
    let tracking = Tracking { url, opens: true, clicks: true, mirror_link };
    let Ok(template) = Template::compile(&sender, &content, &tracking, LIMIT) else { return };
    let fields = template.fields().iter().map(|field| (field.clone(), value.into())).collect();
    let recipient = Recipient { line: 1, email: "ann@example.org".into(), fields };
    let holder = TokenHolder { preparation: 1, recipient: 2, is_proof: false };
    let signer =
        TokenKey::new(&[1; 32]).unwrap().signer(&"0123456789abcdef".parse().unwrap(), 1, holder);
    let (date, message_id) = (jiff::Timestamp::UNIX_EPOCH, "1@shop.example".into());
    let stamp = MessageStamp { date, message_id, boundary: "b".into(), signer: Some(signer) };
    let Ok(message) = template.render(&recipient, &stamp) else { return };
    assert_eq!(
        Ok(&message),
        template.render(&recipient, &stamp).as_ref(),
        "the same bytes each time"
    );
    assert!(message.is_ascii() && message.len() <= LIMIT && message.ends_with(b"\r\n"));
    let text = String::from_utf8(message).unwrap();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "a bare line end");
    assert!(text.split("\r\n").all(|line| line.len() <= 998), "RFC 5322, 2.1.1");
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    for name in ["From: ", "To: ", "Subject: ", "Date: ", "Message-ID: "] {
        let times = head.split("\r\n").filter(|line| line.starts_with(name)).count();
        assert!(times <= 1, "{name} came {times} times");
    }
});
