//! Template errors, as they are reported before and during rendering.

use serde_json::{Value, json};
use versand::{
    domain::delivery::{Sender, Tracking},
    mail::template::{RenderError, Template, TemplateProblem},
};

use super::messages::{LIMIT_BYTES, compile, content, recipient, sender, stamp};

fn problems(subject: &str, html: Option<&str>, text: Option<&str>) -> Vec<TemplateProblem> {
    Template::compile(&sender(), &content(subject, html, text), &Tracking::default(), LIMIT_BYTES)
        .expect_err("has problems")
}

pub fn error(template: &Template, fields: Value) -> RenderError {
    template.render(&recipient(fields), &stamp()).expect_err("fails")
}

#[test]
fn a_missing_field_is_named() {
    let template = compile(
        "Hi {{ name }}",
        Some("{{ name }} {{ address.city }} {% for i in items %}{{ i.n }}{% endfor %}"),
        Some("x"),
    );
    for (fields, part, field) in [
        (json!({}), "subject", "name"),
        (json!({"name": null, "address": {"city": "x"}, "items": []}), "subject", "name"),
        (json!({"name": "n", "items": []}), "html", "address"),
        (json!({"name": "n", "address": {}, "items": []}), "html", "address.city"),
        (json!({"name": "n", "address": {"city": "x"}}), "html", "items"),
    ] {
        let found = error(&template, fields);
        assert_eq!((found.part, found.field.as_deref()), (part, Some(field)), "{found}");
    }
    let found =
        error(&template, json!({"name": "n", "address": {"city": "x"}, "items": [{"m": 1}]}));
    assert_eq!(found.part, "html");
}

#[test]
fn problems_name_part_and_line() {
    let line = |found: &[TemplateProblem]| -> Vec<(&'static str, Option<u32>)> {
        found.iter().map(|p| (p.part, p.line)).collect()
    };
    let found = problems("{{ a", Some("<p>\n{% for %}</p>"), Some("a\n\n{{ b|nosuch }}"));
    assert_eq!(
        line(&found),
        [("subject", Some(1)), ("html", Some(2)), ("text", Some(3))],
        "{found:?}"
    );
    assert_eq!(line(&problems("s", None, None)), [("html", None)]);
    assert_eq!(line(&problems(" ", Some("x"), None)), [("subject", None)]);
    assert_eq!(line(&problems("a\nb", Some("x"), None)), [("subject", None)]);
    let endless =
        "\n{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}";
    assert_eq!(line(&problems("s", Some(endless), None)), [("html", Some(2))]);
    assert_eq!(line(&problems("s", Some("{% include 'nosuch' %}"), None)), [("html", Some(1))]);
    let sender = Sender {
        name: Some("a\nb".into()),
        email: "jürgen@x.example".into(),
        reply_to: Some("x".into()),
        envelope_from: Some(String::new()),
    };
    let found = Template::compile(
        &sender,
        &content("s", None, Some("t")),
        &Tracking::default(),
        LIMIT_BYTES,
    )
    .expect_err("bad sender");
    let parts: Vec<&str> = found.iter().map(|p| p.part).collect();
    assert_eq!(parts, ["sender.name", "sender.email", "sender.reply_to", "sender.envelope_from"]);
}

#[test]
fn a_template_that_never_ends_or_grows_too_big_is_an_error() {
    let template = compile(
        "s",
        None,
        Some("{% for i in range(n) %}{% for j in range(n) %}{{ j }}{% endfor %}{% endfor %}"),
    );
    let found = error(&template, json!({"n": 90_000}));
    assert!(found.message.contains("too long"), "{found}");
    let template = compile("s", None, Some("{{ n ~ n }}"));
    assert!(template.render(&recipient(json!({"n": 10})), &stamp()).is_ok());
    assert!(error(&template, json!({"n": "x".repeat(9_000_000)})).message.contains("too long"));
    assert_eq!(error(&template, json!({"n": "x".repeat(LIMIT_BYTES)})).part, "message");
}

#[test]
fn a_template_that_would_overflow_the_stack_is_refused() {
    let nested =
        |open: &str, close: &str| format!("\n{}x{}", open.repeat(10_000), close.repeat(10_000));
    let chain = |start: &str, link: &str, end: &str, times: usize| {
        format!("\n{start}{}{end}", link.repeat(times))
    };
    for source in [
        nested("{% if a %}", "{% endif %}"),
        nested("{% for i in [1] %}", "{% endfor %}"),
        nested("{{ (", ""),
        nested("{{ [", ""),
        nested("{{ -", ""),
        nested("{{ (", ") }}"),
        chain("{{ a", "|upper", " }}", 20_000),
        chain("{{ a", "|upper", "", 20_000),
        chain("{{ '\\'' ~ '}}' ~ a", ".a", " }}", 20_000),
        chain("{% if a", "+a", " %}{% endif %}", 20_000),
        chain("{% raw %} {% endraw %}{{ a", "()", " }}", 20_000),
        chain("{{ 'endraw' ~ a", "+a", " }}", 20_000),
        chain("{% if a %}", "{% elif a %}", "{% endif %}", 20_000),
    ] {
        let found = problems("s", Some(&source), None);
        assert_eq!(
            (found[0].part, found[0].line),
            ("html", Some(2)),
            "{}: {found:?}",
            &source[..30]
        );
    }
    // The longest allowed templates do not overflow a stack as small as a worker's.
    for longest in [
        chain("{{ a", ".a", " }}", 2040),
        chain("{{ a", "+1", " }}", 2040),
        chain("{% if a %}", "{% elif a %}", "{% endif %}", 200),
    ] {
        let _ = Template::compile(
            &sender(),
            &content("s", Some(&longest), None),
            &Tracking::default(),
            LIMIT_BYTES,
        )
        .map(|template| template.render(&recipient(json!({"a": 1})), &stamp()));
    }
    let raw = format!("{{% raw %}}{}{{% endraw %}}", "{{ x }}".repeat(2000));
    assert!(compile("s", Some(&raw), None).fields().is_empty());
}
