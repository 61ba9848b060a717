//! Tests of the digest.

use super::{
    super::settings::{InDoubt, Tracking},
    *,
};
use crate::domain::{audience::FatigueRule, schedule::Schedule};

fn definition() -> Definition {
    serde_json::from_value(serde_json::json!({
        "name": "Autumn",
        "sender": { "email": "news@shop.example" },
        "content": { "subject": "Hello", "text": "Hi" }
    }))
    .unwrap()
}

fn settings() -> Settings {
    Settings {
        in_doubt: InDoubt::Hold,
        validity_hours: 120.0,
        retry_minutes: vec![5.0],
        message_limit_kib: 512,
        grace_minutes: 60.0,
        request_confirmation: true,
        approvals: 1,
        messages_per_second: None,
        smtp_test: false,
        fatigue: None,
        tracking: Tracking::default(),
        denylist: true,
    }
}

#[test]
fn the_digest_covers_everything_that_is_approved() {
    let base = digest(&definition(), &settings(), b"audience");
    let changes: [fn(&mut Definition); 6] = [
        |d| d.schedule = Schedule::At { at: "2026-12-01T09:00:00".into(), zone: "UTC".into() },
        |d| d.content.subject.push('!'),
        |d| d.content.text = None,
        |d| d.sender.email.push('x'),
        |d| d.sender.reply_to = Some("a@b.example".into()),
        |d| d.content.html = Some("<p>Hi".into()),
    ];
    for change in changes {
        let mut other = definition();
        change(&mut other);
        assert_ne!(digest(&other, &settings(), b"audience"), base);
    }
    assert_ne!(
        digest(&definition(), &Settings { in_doubt: InDoubt::Resend, ..settings() }, b"audience"),
        base
    );
    assert_ne!(
        digest(&definition(), &Settings { message_limit_kib: 8, ..settings() }, b"audience"),
        base
    );
    assert_ne!(
        digest(&definition(), &Settings { smtp_test: true, ..settings() }, b"audience"),
        base
    );
    let rule = Some(FatigueRule { messages: 3, days: 7.0 });
    assert_ne!(digest(&definition(), &Settings { fatigue: rule, ..settings() }, b"audience"), base);
    assert_ne!(digest(&definition(), &settings(), b"other"), base);
    assert_eq!(digest(&definition(), &settings(), b"audience"), base);
}
