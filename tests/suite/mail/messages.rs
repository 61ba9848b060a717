//! Rendered messages, read back by Python's email package with its strict policy.

use std::{
    io::{Seek, Write},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use versand::{
    domain::{
        audience::Recipient,
        delivery::{Content, Sender, Tracking},
    },
    mail::template::{MessageStamp, Template},
};

use super::templates::error;
use crate::harness::missing;

pub const LIMIT_BYTES: usize = 512 * 1024;

/// Prints each parsed message as a line of JSON. The strict policy raises on every defect. In the
/// input a line with the length precedes each message.
const READ_BACK: &str = r#"
import sys, json, email
from email import policy
strict = policy.SMTP.clone(raise_on_defect=True)
def defects(p):
    found = [str(d) for d in p.defects]
    for v in p.values():
        found += [str(d) for d in getattr(v, 'defects', [])]
    return found
while length := sys.stdin.buffer.readline():
    m = email.message_from_bytes(sys.stdin.buffer.read(int(length)), policy=strict)
    parts = [p for p in m.walk() if not p.is_multipart()]
    print(json.dumps({
        'headers': [[k, str(v)] for k, v in m.items()],
        'from': [[a.display_name, a.addr_spec] for a in m['From'].addresses],
        'date': m['Date'].datetime.isoformat(),
        'type': m.get_content_type(),
        'parts': [[p.get_content_type(), p['Content-Transfer-Encoding'], p.get_content().replace('\r\n', '\n')] for p in parts],
        'defects': sum((defects(p) for p in m.walk()), []),
    }))
"#;

pub fn read_back(message: &[u8]) -> Value {
    read_all_back(&[message.to_vec()]).remove(0)
}

/// Parses many messages at once: Python takes longer to start than to read.
fn read_all_back(messages: &[Vec<u8>]) -> Vec<Value> {
    // The input comes from a file, not a pipe: Python answers before it has read all of it.
    let mut input = tempfile::tempfile().expect("a file");
    for message in messages {
        writeln!(input, "{}", message.len()).expect("written");
        input.write_all(message).expect("written");
    }
    input.rewind().expect("the file is rewound");
    let output = Command::new("python3")
        .args(["-c", READ_BACK])
        .stdin(Stdio::from(input))
        .output()
        .unwrap_or_else(|e| panic!("{}", missing(&Command::new("python3"), &e)));
    let read: Vec<Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    if let Some(refused) = messages.get(read.len()) {
        let why = String::from_utf8_lossy(&output.stderr);
        panic!("python3 refuses the message:\n{why}\n{}", String::from_utf8_lossy(refused));
    }
    assert!(output.status.success());
    read
}

/// Rules that a lenient parser does not check: ASCII, CRLF, and no line of more than 76 bytes.
pub fn check_bytes(message: &[u8]) {
    let text = std::str::from_utf8(message).expect("ASCII");
    assert!(text.is_ascii() && text.ends_with("\r\n"));
    let lines = text.strip_suffix("\r\n").expect("the message ends with CRLF").split("\r\n");
    for line in lines {
        assert!(!line.contains(['\r', '\n']), "bare line end in {line:?}");
        assert!(line.len() <= 76, "{} bytes: {line}", line.len());
    }
}

pub fn sender() -> Sender {
    Sender {
        name: Some("Bücher & Söhne".into()),
        email: "news@shop.example".into(),
        reply_to: Some("help@müller.example".into()),
        envelope_from: Some("bounces@shop.example".into()),
    }
}

pub fn content(subject: &str, html: Option<&str>, text: Option<&str>) -> Content {
    Content { subject: subject.into(), html: html.map(Into::into), text: text.map(Into::into) }
}

pub fn compile(subject: &str, html: Option<&str>, text: Option<&str>) -> Template {
    Template::compile(&sender(), &content(subject, html, text), &Tracking::default(), LIMIT_BYTES)
        .expect("compiles")
}

pub fn recipient(fields: Value) -> Recipient {
    Recipient {
        line: 1,
        email: "Jane.Doe@Example.ORG".into(),
        fields: serde_json::from_value(fields).expect("an object"),
    }
}

pub fn stamp() -> MessageStamp {
    MessageStamp {
        date: "2026-11-23T14:50:01Z".parse().expect("an instant"),
        message_id: "d1.c2.r3@shop.example".into(),
        boundary: "d1c2r3".into(),
        signer: None,
    }
}

const ORDER: &str = "<html><body><h1>Hi {{ name|title }},</h1>
<table>{% for item in items %}<tr><td>{{ loop.index }}. {{ item.name }}</td><td>{{ item.price|round(2) }} €</td></tr>{% endfor %}</table>
{% if note %}<p>{{ note }}</p>{% endif %}
<p><a href=\"https://shop.example/o?id={{ id|urlencode }}&amp;l={{ lang|default('en') }}\">Your order</a></p></body></html>";

#[test]
fn a_delivery_with_loops_filters_and_defaults_is_read_back_as_written() {
    let template =
        compile("Order {{ id }} für {{ name }}: {{ items|length }} items", Some(ORDER), None);
    let fields: Vec<&str> = template.fields().iter().map(String::as_str).collect();
    assert_eq!(fields, ["id", "items", "lang", "name", "note"]);
    assert_eq!(template.envelope_from(), "bounces@shop.example");
    let jane = recipient(json!({
        "id": "A/7", "name": "jane", "note": "5 < 6 & \"x\"", "unused": "é",
        "items": [{"name": "Ei 🥚", "price": 1.246}, {"name": "<b>Öl</b>", "price": 12}],
    }));
    let message = template.render(&jane, &stamp()).expect("renders");
    assert_eq!(template.render(&jane, &stamp()).expect("renders"), message, "deterministic");
    check_bytes(&message);
    let read = read_back(&message);
    assert_eq!(read["defects"], json!([]));
    assert_eq!(read["type"], "multipart/alternative");
    assert_eq!(read["from"], json!([["Bücher & Söhne", "news@shop.example"]]));
    assert_eq!(read["date"], "2026-11-23T14:50:01+00:00");
    let header = |name: &str| {
        let headers = read["headers"].as_array().expect("headers");
        let found: Vec<&Value> = headers.iter().filter(|h| h[0] == name).map(|h| &h[1]).collect();
        assert_eq!(found.len(), 1, "{name} occurs once");
        found[0].as_str().expect("text").to_owned()
    };
    assert_eq!(header("Subject"), "Order A/7 für jane: 2 items");
    assert_eq!(header("Message-ID"), "<d1.c2.r3@shop.example>");
    assert_eq!(header("To"), "Jane.Doe@example.org");
    assert_eq!(header("Reply-To"), "help@xn--mller-kva.example");
    assert_eq!(header("MIME-Version"), "1.0");
    assert_eq!(read["parts"][0][0], "text/plain", "the simplest part comes first");
    assert_eq!(
        read["parts"][0][2],
        "Hi Jane,\n\n1. Ei 🥚 1.25 €\n2. <b>Öl</b> 12 €\n\n5 < 6 & \"x\"\n\nYour order <https://shop.example/o?id=A/7&l=en>"
    );
    let html = read["parts"][1][2].as_str().expect("text");
    assert!(html.contains("&lt;b&gt;Öl&lt;&#x2f;b&gt;"), "escaped: {html}");
    assert!(html.contains("5 &lt; 6 &amp; &quot;x&quot;"), "escaped: {html}");
}

#[test]
fn texts_of_many_languages_and_lengths_survive() {
    let long = "long words and short ones ".repeat(50);
    let one_word = "x".repeat(1500);
    let bodies = [
        "plain\n",
        "",
        "  lead\n\n\ntrail  \n",
        ".\n..\nFrom here\n",
        "tab\tand nul\u{7}\n",
        "こんにちは世界、メール\n",
        "Grüße = ß\u{a0}\n",
        &long,
        &one_word,
    ];
    let subjects = ["Hello", "例え 🎉", &long, &one_word];
    let written: Vec<(&str, &str)> =
        bodies.iter().flat_map(|body| subjects.iter().map(|subject| (*subject, *body))).collect();
    let render = |(subject, body): &(&str, &str)| {
        let template = compile("{{ s }}", None, Some("{{ b }}"));
        template.render(&recipient(json!({"s": subject, "b": body})), &stamp()).expect("renders")
    };
    let messages: Vec<Vec<u8>> = written.iter().map(render).collect();
    messages.iter().for_each(|message| check_bytes(message));
    let all = read_all_back(&messages);
    assert_eq!(all.len(), bodies.len() * subjects.len());
    for (read, (subject, body)) in all.iter().zip(written) {
        assert_eq!(read["defects"], json!([]), "{body}");
        assert_eq!(read["type"], "text/plain");
        let got = read["headers"]
            .as_array()
            .expect("headers")
            .iter()
            .find(|h| h[0] == "Subject")
            .expect("Subject")[1]
            .clone();
        assert_eq!(got, subject.trim(), "{body}");
        let end = if body.is_empty() || body.ends_with('\n') { "" } else { "\n" };
        assert_eq!(read["parts"][0][2], format!("{body}{end}"));
    }
}

#[test]
fn a_control_character_in_a_header_is_an_error_that_names_the_field() {
    let template = compile("Hi {{ name }} {{ city|default('') }}", None, Some("{{ name }}"));
    for bad in ["a\r\nBcc: x@evil.example", "a\nb", "a\rb", "a\0b", "a\u{85}b", "a\u{7f}"] {
        let found = error(&template, json!({"city": "Bonn", "name": bad}));
        assert_eq!((found.part, found.field.as_deref()), ("subject", Some("name")), "{bad:?}");
    }
    // A body may hold these characters.
    let template = compile("Hi", None, Some("{{ name }}"));
    assert!(template.render(&recipient(json!({"name": "a\r\nb"})), &stamp()).is_ok());
    let mut evil = recipient(json!({}));
    evil.email = "a@b.example\r\nBcc: x@evil.example".into();
    let found = template.render(&evil, &stamp()).expect_err("refused");
    assert_eq!((found.part, found.field.as_deref()), ("email", Some("email")));
}
