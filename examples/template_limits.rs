//! Prints the time and the memory that the worst allowed templates take for one recipient.
//!
//! Use: `cargo run --example template_limits`. The figures of this build without optimisation are
//! in `docs/guide/templates.md`.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program that only prints

use std::{fs, time::Instant};

use serde_json::{Value, json};
use versand::{
    domain::{
        audience::Recipient,
        delivery::{Content, Sender, Tracking},
    },
    mail::template::{MessageStamp, Template},
};

const LIMIT_BYTES: usize = 512 * 1024;

fn main() {
    println!("{:<44} {:>9} {:>9} {:>10}", "template", "compile", "message", "peak");
    for (name, source) in worst() {
        let content =
            Content { subject: "s".into(), html: Some(source.clone()), text: Some(source) };
        let sender = Sender {
            name: None,
            email: "news@shop.example".into(),
            reply_to: None,
            envelope_from: None,
        };
        let before = peak_kib();
        let began = Instant::now();
        let compiled = Template::compile(&sender, &content, &Tracking::default(), LIMIT_BYTES);
        let compile_ms = began.elapsed().as_secs_f64() * 1000.0;
        let Ok(template) = compiled.inspect_err(|problems| println!("{name}: {problems:?}")) else {
            continue;
        };
        let to = Recipient {
            line: 1,
            email: "ann@example.org".into(),
            fields: fields().as_object().cloned().unwrap(),
        };
        let stamp = MessageStamp {
            date: jiff::Timestamp::UNIX_EPOCH,
            message_id: "1@shop.example".into(),
            boundary: "b".into(),
            signer: None,
        };
        let began = Instant::now();
        let result = template.try_message(&to, &stamp);
        let message_ms = began.elapsed().as_secs_f64() * 1000.0;
        let peak = (peak_kib() - before) / 1024;
        let end = result.err().map(|error| error.message).unwrap_or_default();
        println!("{name:<44} {compile_ms:>6.1} ms {message_ms:>6.1} ms {peak:>6} MiB  {end}");
    }
}

/// Fields that fit into an upload line of 64 KiB: a long text, a long list, a deep list, and maps.
fn fields() -> Value {
    let mut deep = json!(1);
    for _ in 0..120 {
        deep = json!([deep]);
    }
    json!({
        "text": "x".repeat(20_000),
        "numbers": vec![1; 5000],
        "texts": vec!["Ab"; 2000],
        "maps": vec![json!({"k": "v", "n": 1}); 300],
        "deep": deep,
        "n": 100_000,
    })
}

/// Templates that use up the fuel in different ways.
pub fn worst() -> Vec<(&'static str, String)> {
    let loops = |inner: &str| {
        format!(
            "{{% for i in range(n) %}}{{% for j in range(n) %}}{inner}{{% endfor %}}{{% endfor %}}"
        )
    };
    let mut list = vec![
        ("nothing in loops", loops("")),
        ("a field", loops("{{ text }}")),
        ("a long field is true", loops("{% if text %}{% endif %}")),
        ("a loop over a text", loops("{% for c in text %}{% endfor %}")),
        ("upper", loops("{{ text|upper|length }}")),
        ("upper of a list", loops("{{ numbers|upper|length }}")),
        ("eq of lists", loops("{% if numbers is eq(texts) %}{% endif %}")),
        ("eq of one list", loops("{% if numbers is eq(numbers|list) %}{% endif %}")),
        ("== of a text", loops("{% if text == 'x' %}{% endif %}")),
        ("in a text", loops("{% if 'y' in text %}{% endif %}")),
        ("in a list", loops("{% if 'y' in texts %}{% endif %}")),
        ("sort", loops("{{ texts|sort|length }}")),
        ("sort by attribute", loops("{{ maps|sort(attribute='k')|length }}")),
        ("unique", loops("{{ texts|unique|length }}")),
        ("max", loops("{{ texts|max }}")),
        ("map", loops("{{ texts|map('upper')|list|length }}")),
        ("join", loops("{{ numbers|join(', ')|length }}")),
        ("a deep list", loops("{{ deep }}")),
        ("round", loops("{{ 1.2345|round(1000) }}")),
        ("round down", loops("{{ 1.2345e300|round(-290) }}")),
        ("trim of a text", loops("{{ text|trim(text)|length }}")),
        ("the smallest number", loops("{{ 5e-324 }}")),
        ("a remainder", loops("{{ 1e308 % 1e-308 }}")),
        ("select", loops("{{ texts|select('eq', 'x')|length }}")),
        ("division", loops("{{ 12345678901234567890 / 3 }}")),
        ("last of a map", loops("{{ maps[0]|last }}")),
        ("replace", loops("{{ text|replace('x', 'yyyyyyyyyyyyyyyy')|length }}")),
        ("urlencode", loops("{{ texts|urlencode|length }}")),
        ("a joined text", loops("{{ (text ~ text)|length }}")),
        ("items", loops("{% for k, v in maps[0]|items %}{% endfor %}")),
        ("attr of a range", loops("{{ range(n)|attr(99999) }}")),
    ];
    let doubled = (0..40).map(|i| {
        let (now, next) = (format!("a{i}"), format!("a{}", i + 1));
        format!("{{% set {next} = ({now} ~ {now})|string %}}")
    });
    let doubled = format!("{{% set a0 = text %}}{}", doubled.collect::<String>());
    list.push(("a doubled text", doubled));
    list.push(("many tags", "{{n}}".repeat(25_000)));
    list.push(("many filters", "{{n|abs|abs|abs|abs|abs}}".repeat(7000)));
    list.push(("many loops", "{% for i in range(1000) %}{% endfor %}".repeat(9000)));
    list.push(("many loops over fields", "{%for i in numbers%}{%endfor%}".repeat(9000)));
    list
}

/// The largest resident memory of this process so far.
fn peak_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}
