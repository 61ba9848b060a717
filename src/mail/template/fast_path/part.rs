//! One part of a message on the fast path: the engine's result, or nothing.

use std::collections::BTreeSet;

use minijinja::{Environment, Error, ErrorKind, Value, escape_formatter, value::ValueKind};

use super::{
    literal_runs::extract,
    merge::{CompiledMerge, MergeLimits},
};
use crate::mail::{
    compose::{Body, LiteralRun, holds_mark},
    template::fields::FieldValues,
};

/// A part, compiled for the fast path.
#[derive(Debug)]
pub struct FastPathPart {
    method: Method,
    runs: Vec<LiteralRun>,
    limits: MergeLimits,
}

#[derive(Debug)]
enum Method {
    /// Merges without the engine.
    Merge(CompiledMerge),
    /// Uses the engine, with marks in place of literal runs.
    Marked(Box<Environment<'static>>),
    /// Has no fast path.
    None,
}

impl FastPathPart {
    /// Compiles the part. `limits` are those of the engine. They apply to the text with the literal
    /// runs in place of their marks.
    pub fn new(
        environment: &Environment<'static>,
        part: &'static str,
        used: &BTreeSet<String>,
        limits: MergeLimits,
    ) -> Self {
        let none = Self { method: Method::None, runs: Vec::new(), limits };
        let Ok(template) = environment.get_template(part) else { return none };
        // A subject is encoded as a header, so it has no literal runs.
        if part == "subject" {
            let merge = CompiledMerge::new(template.source(), used, false);
            return Self { method: merge.map_or(Method::None, Method::Merge), ..none };
        }
        let Some((marked, runs)) = extract(template.source()) else { return none };
        if let Some(merge) = CompiledMerge::new(&marked, used, part == "html") {
            return Self { method: Method::Merge(merge), runs, limits };
        }
        let mut environment = environment.clone();
        environment.set_formatter(|out, state, value| {
            if may_hold_mark(value) {
                return Err(Error::new(ErrorKind::InvalidOperation, "a value holds a mark"));
            }
            escape_formatter(out, state, value)
        });
        // The engine drops this line end.
        match environment.add_template_owned(part, marked + "\r\n") {
            Ok(()) if !runs.is_empty() => {
                Self { method: Method::Marked(Box::new(environment)), runs, limits }
            }
            _ => none,
        }
    }

    /// Whether the part is merged without the engine and without a loop, and so takes little time.
    pub fn is_simple(&self) -> bool {
        matches!(&self.method, Method::Merge(merge) if !merge.has_loop())
    }

    /// The text of the part for one recipient.
    ///
    /// `None` without a fast path, and on any error. The engine then decides.
    pub fn render<'a>(
        &'a self,
        part: &str,
        values: &'a FieldValues<'_>,
        context: impl FnOnce() -> Value,
    ) -> Option<Body<'a>> {
        let text = match &self.method {
            Method::Merge(merge) => merge.render(values, self.limits)?,
            Method::Marked(environment) => {
                environment.get_template(part).ok()?.render(context()).ok()?
            }
            Method::None => return None,
        };
        Some(Body::new(text, &self.runs, values.signer()))
            .filter(|body| body.bytes <= self.limits.bytes)
    }
}

fn may_hold_mark(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None | ValueKind::Bool | ValueKind::Number => false,
        // Lists and objects are rarely written, so they count as values that may hold a mark.
        _ => value.as_str().is_none_or(holds_mark),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::{Map, Value as Json, json};

    use super::*;
    use crate::{
        domain::{
            audience::Recipient,
            delivery::{Content, Sender, Tracking},
        },
        mail::{
            links::{TokenHolder, TokenKey},
            template::{MessageStamp, RenderError, Template},
        },
    };

    fn template(html: Option<String>, text: Option<String>) -> Option<Template> {
        let sender = Sender {
            name: None,
            email: "news@shop.example".into(),
            reply_to: None,
            envelope_from: None,
        };
        let tracking = Tracking {
            url: "https://t.shop.example/a=b".into(),
            opens: true,
            clicks: true,
            mirror_link: "In a browser".into(),
        };
        Template::compile(
            &sender,
            &Content { subject: "Hi {{ a }}".into(), html, text },
            &tracking,
            64 * 1024,
        )
        .ok()
    }

    fn recipient(fields: Map<String, Json>) -> Recipient {
        Recipient { line: 1, email: "ann@example.org".into(), fields }
    }

    fn stamp() -> MessageStamp {
        let holder = TokenHolder { preparation: 1, recipient: 2, is_proof: false };
        let signer = TokenKey::new(&[1; 32]).expect("a key").signer(
            &"0123456789abcdef".parse().expect("an id"),
            1,
            holder,
        );
        let (message_id, boundary) = ("1@shop.example".into(), "b".into());
        MessageStamp {
            date: jiff::Timestamp::UNIX_EPOCH,
            message_id,
            boundary,
            signer: Some(signer),
        }
    }

    fn render(template: &Template, recipient: &Recipient) -> Result<String, RenderError> {
        template
            .render(recipient, &stamp())
            .map(|message| String::from_utf8(message).expect("ASCII"))
    }

    fn render_by_engine(
        mut template: Template,
        recipient: &Recipient,
    ) -> Result<String, RenderError> {
        for part in &mut template.parts {
            part.fast_path.method = Method::None;
        }
        render(&template, recipient)
    }

    fn tag() -> impl Strategy<Value = String> {
        const COMMON: &[&str] = &[
            "{ a }",
            "{a}",
            "{ b }",
            "{ c }",
            "{ email }",
            "{ c|upper }",
            "{ i }",
            "{ i.k }",
            "{ m.k }",
            "{ m.k }",
            "{ unsubscribe_url }",
            "{ mirror_url|upper }",
            "{ i }",
            "{ 'x\n' ~ a }",
            "% set b = a %",
            "# a\n\n #",
            "##",
        ];
        const RARE: &[&str] = &[
            "{ n }",
            "{ n|default('}}\n') }",
            "{ {'k': a}.k }",
            "{ l }",
            "{ '%c'|format(1048576) }",
            "{ nosuch }",
            "{ true }",
        ];
        let inner = prop_oneof![20 => select(COMMON), 1 => select(RARE)];
        let inner = inner.prop_map(str::to_owned);
        let dash = || prop_oneof![4 => Just(""), 1 => Just("-")];
        (inner, dash(), dash()).prop_map(|(inner, before, after)| {
            let (open, rest) = inner.split_at(1);
            let (middle, close) = rest.split_at(rest.len() - 1);
            format!("{{{open}{before}{middle}{after}{close}}}")
        })
    }

    fn literal() -> impl Strategy<Value = String> {
        const LINES: &[&str] = &[
            "A line of <b>words</b> = 1.\n",
            "two\r\nlines\r\n",
            "\n",
            "\r",
            "  \n",
            " ",
            ".\n",
            "From x\n",
            "a\rb",
            "{",
            "}}",
        ];
        const LINKS: &[&str] = &[
            "<p>A line with <a href='https://shop.example/1'>one</a>.\n",
            "<A class=x HREF=https://shop.example/2>two</A>\n\
             <a href=\"https://shop.example/?a={{ a }}\">3</a>",
            "<a href='{{ i }}'>x</a>\n<body>\n",
            "<a data-track=false href='https://x.example'>x</a></body>\n",
            "<a href='https://a.example'><a href='https://b.example'>",
        ];
        prop_oneof![
            8 => select(LINKS).prop_map(str::to_owned),
            3 => ("[ -<>-~]{0,70}", select(LINKS))
                .prop_map(|(before, link)| format!("x\n{before}{link}")),
            12 => select(LINES).prop_map(str::to_owned),
            6 => "[a-d .=<ü\t\r\n-]{0,9}",
            2 => "x{70,160}",
            2 => "(Здравствуйте\n?){1,9}",
        ]
    }

    /// Templates with all kinds of tags between literal lines, most of them valid.
    fn source() -> impl Strategy<Value = String> {
        const COMMON: &[(&str, &str)] = &[
            ("{% for i in l %}", "{% endfor %}"),
            ("{% for i in l %}\n", "{%- else %}\n\n{% endfor %}\n"),
            ("{%- for i in l -%}", "{%- endfor -%}"),
            ("{% for i in range(3) %}", "{% endfor %}"),
            ("{% for a in l %}", "{% else %}{{ a }}\n{% endfor %}"),
            ("{% for i in m.l %}{{ i.k }}", "{{ i }}{% endfor %}"),
            ("{% if a %}", "{% endif %}"),
            ("{% if not b %}", "{%- else %} \n {% endif %}"),
            ("{% if m.k %}", "{% elif c -%}\n other {%- else %}\n\n{% endif %}\n"),
            ("{% if n is defined -%}", "{% else -%}\nelse\n{% endif %}"),
            ("{% with b = c %}", "{% endwith %}"),
        ];
        const RARE: &[(&str, &str)] = &[
            (
                "{% for a in l recursive %}{% if a > 1 %}{{ loop([1])|length }}{% endif %}",
                "{% endfor %}",
            ),
            ("{% raw %}", "{% endraw %}"),
            ("{%- raw -%}\n", "\n{%- endraw -%}"),
            ("{% set b %}", "{% endset %}{{ b|length }}"),
            ("{% filter upper %}", "{% endfilter %}"),
            ("{% macro m() %}", "{% endmacro %}{{ m()|length }}"),
            ("{% block x %}", "{% endblock %}{{ self.x() }}"),
            ("{% include 'subject' %}", "a literal\u{100000}\n"),
        ];
        let within = |blocks: &'static [(&str, &str)], inner: BoxedStrategy<String>| {
            let parts = (select(blocks), vec(inner, 0..6));
            parts.prop_map(|((open, close), inner)| format!("{open}{}{close}", inner.concat()))
        };
        let leaf = prop_oneof![3 => literal(), 2 => tag()];
        let piece = leaf.prop_recursive(2, 20, 6, move |inner| {
            prop_oneof![
                30 => inner.clone(),
                15 => within(COMMON, inner.clone()),
                1 => within(RARE, inner),
            ]
        });
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn value() -> impl Strategy<Value = Json> {
        prop_oneof![
            3 => "[a-z<>&'\"/.= \u{FC}\r\n]{0,12}".prop_map(Json::from),
            1 => select(vec![
                json!(7),
                json!(-1),
                json!(1.0),
                json!(1e30),
                json!(u64::MAX),
                json!(true),
                json!(null),
                json!([1, "b"]),
                json!("\u{100000}"),
                json!("я".repeat(90)),
            ]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn fast_path_and_engine_give_the_same_bytes(
            html in proptest::option::of(source()),
            text in proptest::option::of(source()),
            (a, b, c, n) in (value(), value(), value(), proptest::option::of(value())),
            l in vec(prop_oneof![3 => value(), 1 => value().prop_map(|k| json!({"k": k}))], 0..3),
        ) {
            let Some(template) = template(html, text) else { return Ok(()) };
            let m = json!({"k": c, "l": [{"k": a}, {"k": n}]});
            let fields = json!({"a": a, "b": b, "c": c, "n": n, "i": b, "l": l, "m": m});
            let to = recipient(serde_json::from_value(fields).expect("an object"));
            let fast = render(&template, &to);
            let tried = fast.clone().and_then(|_| template.try_links(&to, &stamp()));
            prop_assert_eq!(template.try_message(&to, &stamp()), tried);
            prop_assert_eq!(fast, render_by_engine(template, &to));
        }
    }

    #[test]
    fn only_what_differs_is_rendered() {
        let lines = "The same.\n".repeat(3);
        let template = template(
            Some(format!("{lines}<p>{{{{ a }}}}</p>\n{lines}")),
            Some(format!("{lines}{{% if a -%}}\n{lines}{{{{ a|upper }}}}\n{{% endif %}}\n{lines}")),
        );
        let template = template.expect("compiles");
        let [subject, html, text] = &template.parts;
        assert!(matches!(
            (&subject.fast_path.method, subject.fast_path.runs.len()),
            (Method::Merge(_), 0)
        ));
        assert!(matches!(
            (&html.fast_path.method, html.fast_path.runs.len()),
            (Method::Merge(_), 2)
        ));
        assert!(matches!(
            (&text.fast_path.method, text.fast_path.runs.len()),
            (Method::Marked(_), 3)
        ));
    }

    #[test]
    fn a_part_that_is_too_long_fails_even_if_marks_hide_its_size() {
        let lines = "The same to everybody.\n".repeat(1000);
        let source = format!("{{% for i in range(n) %}}\n{lines}{{% endfor %}}");
        let template = template(None, Some(source)).expect("compiles");
        let to =
            recipient(serde_json::from_value(json!({"a": "x", "n": 20_000})).expect("an object"));
        let found = render(&template, &to).expect_err("too much");
        assert_eq!((found.part, found.message.contains("too long")), ("text", true));
    }
}
