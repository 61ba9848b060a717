//! Templates that compose values (deep, repeated, doubled) stay within the stated bound of work.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};
use versand::{
    domain::{
        audience::Recipient,
        delivery::{Content, Sender, Tracking},
    },
    mail::template::{MessageStamp, Template, check_language, filter_names, test_names},
};

const LIMIT: usize = 512 * 1024;
/// The most computing time for a compilation or for a message. This bound is far above the times
/// that `docs/guide/templates.md` states.
const MOST_TIME: Duration = Duration::from_secs(2);

/// The depth of the outermost statements. Only these are repeated often.
const OUTERMOST: u32 = 3;

const NAMES: [&str; 6] = ["text", "list", "map", "deep", "n", "x"];
const OPERATORS: [&str; 16] =
    ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or", "**"];
const CONSTANTS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "1000",
    "99999999999999999999",
    "1.5",
    "1e308",
    "''",
    "'x'",
    "true",
    "none",
    "['a', 1]",
];
const ATTRIBUTES: [&str; 5] = [".k", "[0]", "['k']", ".k.k", "[1:]"];
const ARGUMENTS: [&str; 12] = [
    "",
    "()",
    "(1)",
    "(2, 'x')",
    "('k')",
    "('upper')",
    "('k', 'eq', 1)",
    "(attribute='k')",
    "(text)",
    "('x', text)",
    "(reverse=true)",
    "(list)",
];

fn pick<'a>(u: &mut Unstructured<'_>, list: &[&'a str]) -> Result<&'a str> {
    u.choose(list).copied()
}

/// An expression. Most are within the language: else hardly any template would be rendered.
fn expression(u: &mut Unstructured<'_>, depth: u32) -> Result<String> {
    let expr = any_expression(u, depth)?;
    match check_language(&format!("{{{{ {expr} }}}}")).is_ok() || u.ratio(1, 50)? {
        true => Ok(expr),
        false => Ok(format!("{}|length", pick(u, &NAMES)?)),
    }
}

fn any_expression(u: &mut Unstructured<'_>, depth: u32) -> Result<String> {
    if depth == 0 || u.is_empty() {
        return Ok(match u.ratio(2, 3)? {
            true => pick(u, &NAMES)?.to_owned(),
            false => pick(u, &CONSTANTS)?.to_owned(),
        });
    }
    let mut inner = || expression(u, depth - 1);
    let left = inner()?;
    Ok(match u.int_in_range(0..=9)? {
        0 => format!("{left}{}", pick(u, &ATTRIBUTES)?),
        1 => format!("({left} {} {})", pick(u, &OPERATORS)?, expression(u, depth - 1)?),
        2 => format!("[{left}, {}]", expression(u, depth - 1)?),
        3 => format!("range({left})"),
        4 => {
            let tests: Vec<&str> = test_names().collect();
            format!(
                "({left} is {}{})",
                pick(u, &tests)?,
                pick(u, &["", "(1)", "(list)", "(text)"])?
            )
        }
        5 => format!("({left} if {} else {})", pick(u, &NAMES)?, expression(u, depth - 1)?),
        _ => {
            let filters: Vec<&str> = filter_names().collect();
            format!("{left}|{}{}", pick(u, &filters)?, pick(u, &ARGUMENTS)?)
        }
    })
}

fn statements(u: &mut Unstructured<'_>, depth: u32) -> Result<String> {
    let mut source = String::new();
    for _ in 0..u.int_in_range(1..=4)? {
        let expr = expression(u, 3)?;
        let one = match u.int_in_range(0..=5)? {
            0 => format!("{{{{ {expr} }}}}"),
            1 => format!("{{% set {} = {expr} %}}", pick(u, &NAMES)?),
            2 if depth > 0 => {
                format!("{{% if {expr} %}}{}{{% endif %}}", statements(u, depth - 1)?)
            }
            3 | 4 if depth > 0 => format!(
                "{{% for {} in {expr} %}}{}{{% endfor %}}",
                pick(u, &["x", "n", "x, n", "text"])?,
                statements(u, depth - 1)?
            ),
            _ => format!("{{{{ {expr}|length }}}}"),
        };
        if check_language(&one).is_err() && !u.ratio(1, 50)? {
            continue;
        }
        let times = match depth {
            OUTERMOST => *u.choose(&[1, 1, 1, 2, 40, 2000])?,
            _ => *u.choose(&[1, 1, 1, 3])?,
        };
        source.push_str(&one.repeat(times.min(200_000 / one.len().max(1)).max(1)));
        if source.len() > LIMIT {
            break;
        }
    }
    Ok(source)
}

fn value(u: &mut Unstructured<'_>, depth: u32) -> Result<Value> {
    Ok(match u.int_in_range(0..=5)? {
        0 => json!("x".repeat(*u.choose(&[0, 1, 30, 20_000])?)),
        1 => json!(u.arbitrary::<i64>()?),
        2 => json!(u.arbitrary::<f64>().map(|n| if n.is_finite() { n } else { 0.5 })?),
        3 if depth > 0 => {
            let item = value(u, depth - 1)?;
            let size = item.to_string().len().max(1);
            json!(vec![item; (*u.choose(&[0, 1, 3, 5000])?).min(20_000 / size + 1)])
        }
        4 if depth > 0 => {
            let item = value(u, depth - 1)?;
            json!({"k": item, "n": 1})
        }
        _ => {
            let mut deep = json!(1);
            for _ in 0..u.int_in_range(0..=120)? {
                deep = json!([deep]);
            }
            deep
        }
    })
}

fn parts(bytes: &[u8]) -> Result<(String, Map<String, Value>)> {
    let mut u = Unstructured::new(bytes);
    let mut fields = Map::new();
    for name in NAMES {
        fields.insert(name.to_owned(), value(&mut u, 2)?);
    }
    Ok((statements(&mut u, OUTERMOST)?, fields))
}

/// The computing time of this thread while it does `work`.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let began = now();
    let result = work();
    (result, now() - began)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok((source, fields)) = parts(bytes) else { return };
    let sender: Sender = serde_json::from_str(r#"{"email":"news@shop.example"}"#).unwrap();
    let content =
        Content { subject: "s".to_owned(), html: Some(source.clone()), text: Some(source.clone()) };
    let (compiled, taken) =
        timed(|| Template::compile(&sender, &content, &Tracking::default(), LIMIT));
    let shown: String = source.chars().take(2000).collect();
    assert!(taken < MOST_TIME, "compiled in {taken:?}: {shown}");
    let Ok(template) = compiled else { return };
    let recipient = Recipient { line: 1, email: "ann@example.org".into(), fields };
    let (date, message_id) = (jiff::Timestamp::UNIX_EPOCH, "1@shop.example".into());
    let stamp = MessageStamp { date, message_id, boundary: "b".into(), signer: None };
    let (tried, taken) = timed(|| template.try_message(&recipient, &stamp));
    assert!(taken < MOST_TIME, "a message in {taken:?}: {shown}");
    let made = template.render(&recipient, &stamp).map(drop);
    assert_eq!(made, tried, "the dry run ends as the rendering does: {shown}");
});
