//! Templates as an attacker writes them: none ends, stalls or bloats the daemon.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{
    LIMIT,
    client::{Client, audience, definition},
    daemon::Daemon,
    eventually,
    people::start,
    redis::RedisServer,
    relay::TestRelay,
};

/// The longest answer of the admin API that is accepted here. It is ten times the daemon's promise
/// of 100 ms (see `floods.rs`), because other tests use the machine, too.
const ANSWER: Duration = Duration::from_secs(1);
/// The most memory that the worst preparations may add, in KiB.
const MORE_KIB: usize = 300 * 1024;

/// Templates outside the language, which once ended or froze the daemon, and their relatives.
fn refused() -> Vec<String> {
    let repeated = |tag: &str| format!("{{% set l=[l] %}}{}", tag.repeat(15_000));
    let doubled = |end: &str| format!("{{% set l=[l,l] %}}{}{end}", "{% set l=[l,l] %}".repeat(40));
    let nested =
        "{% set n=namespace(l=[]) %}{% for i in range(15000) %}{% set n.l=[n.l] %}{% endfor %}";
    let mut list: Vec<String> = [
        "{{ ([[1]*100000]*100000)|sum(start=[])|length }}",
        "{{ 'x' * 1000000000000 }}",
        "{{ n * text }}",
        "{% set l = l * 3 %}",
        "{% set l = l + l %}",
        "{{ [text, text]|join }}",
        "{{ {'a': l} }}",
        "{{ (l, l) }}",
        "{{ dict(a=l) }}",
        "{{ l|zip(l) }}",
        "{{ l|chain(l) }}",
        "{% set l = l|batch(1) %}",
        "{{ l|slice(3) }}",
        "{{ l|groupby('a') }}",
        "{{ l|map('list') }}",
        "{{ l|map('map', 'list') }}",
        "{{ l|map('batch', 1) }}",
        "{{ l|map(attribute='x', default=l) }}",
        "{{ l|map('default', l) }}",
        "{{ l|sum(start=l) }}",
        "{{ l|int(l) * 3 }}",
        "{{ l|pprint }}",
        "{{ l|tojson }}",
        "{{ '%1000000d'|format(1) }}",
        "{{ ''|indent(1000000) }}",
        "{% set s = s ~ s %}",
        "{% set s = (s ~ s)|default('') %}",
        "{% for c in s ~ s %}{% endfor %}",
        "{% for c in s if loop.index * l %}{% endfor %}",
        "{% set loop = l %}",
        "{{ loop.index * 3 }}",
        "{{ l == m }}",
        "{{ 1 < l < m }}",
        "{{ l in m }}",
        "{{ l in 'text' }}",
        "{{ l[1:] }}",
        "{{ text[n] }}",
        "{{ text[-1] }}",
        "{{ 2 ** n }}",
        "{{ range(0, 10, n) }}",
        "{{ loop.cycle() }}",
        "{{ loop.changed(l) }}",
        "{{ l.append(l) }}",
        "{{ debug() }}",
        "{{ f(*l) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in l recursive %}{{ loop([l]) }}{% endfor %}",
        "{% include 'html' %}",
        "{% extends 'html' %}",
        "{% import 'html' as h %}",
        "{% block b %}{{ self.b() }}{% endblock %}",
        "{% set s %}{{ s }}{{ s }}{% endset %}",
        "{% filter upper %}x{% endfilter %}",
        "{% autoescape false %}{% endautoescape %}",
        "{% do n.x() %}",
        "{% call m() %}{% endcall %}",
        "{{ l|select('nosuch') }}",
        "{{ l is filter('upper') }}",
        "{{ l is sameas(m) }}",
        "{{ l|sort(attribute='k,k,k,k,k') }}",
        nested,
    ]
    .map(str::to_owned)
    .into();
    list.extend(["{{ l }}", "{{ l == l }}", "{{ l|sum }}", "{{ l|pprint }}", ""].map(doubled));
    list.extend([
        format!("{nested}{{{{ n.l }}}}"),
        format!("{nested}{{{{ n.l == n.l }}}}"),
        repeated("{% set l=[l] %}"),
        "{#".repeat(200_000),
        "{{".repeat(200_000),
        "{%".repeat(200_000),
        "{% raw %}".repeat(60_000),
        "{{ '".repeat(100_000),
        "{{n}}".repeat(60_000),
        format!("{{{{ l|sum('{}') }}}}", "k.".repeat(100)),
        format!("{}{}", "{% for a in l %}".repeat(21), "{% endfor %}".repeat(21)),
    ]);
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_outside_the_language_are_refused_at_once_with_their_line() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let id = app.client.create(&definition()).await;
    for source in refused() {
        let shown: String = source.chars().take(60).collect();
        for (part, before) in [("html", "<p>\n\n"), ("text", "\n\n"), ("subject", "")] {
            let mut definition = definition();
            definition["content"][part] = format!("{before}{source}").into();
            let (status, problem) = app.client.post("/deliveries", &definition).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{shown}: {problem}");
            assert_eq!(problem["field"], format!("content.{part}"), "{shown}: {problem}");
            let line = if before.is_empty() { "template line 1: " } else { "template line 3: " };
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(line), "{shown}: {detail}");
        }
        let mut definition = definition();
        definition["content"]["html"] = source.into();
        let path = format!("/deliveries/{id}");
        let changed = app.client.request(Method::PUT, &path).json(&definition).send().await;
        assert_eq!(changed.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY, "{shown}");
    }
    app.stop().await;
}

/// Templates inside the language that use up all that it allows.
///
/// `examples/template_limits.rs` prints the figures of similar templates without markup.
fn costly() -> Vec<(&'static str, String)> {
    let loops = |inner: &str| {
        format!(
            "{{% for i in range(n) %}}{{% for j in range(n) %}}{inner}{{% endfor %}}{{% endfor %}}"
        )
    };
    let divs = |tag: &str| format!("{}end", tag.repeat(60_000));
    vec![
        ("html", loops("{{ texts|sort|length }}")),
        ("html", loops("{{ text|upper|length }}")),
        ("html", loops("{% if texts is eq(numbers) %}{% endif %}")),
        ("html", loops("{{ deep }}")),
        ("html", loops("{% for c in text %}{% endfor %}")),
        ("text", loops("{{ texts|join(',')|length }}")),
        ("html", "{{n}}".repeat(24_000)),
        ("html", "{% for i in range(1000) %}{% endfor %}".repeat(9000)),
        ("html", divs("<div>")),
        ("html", divs("<a>")),
        ("html", divs("<b><p>")),
        ("html", "<".repeat(500_000)),
        ("html", "<a href='https://x.example/{{ n|upper }}'>x</a>".repeat(1900)),
        ("html", "&amp;".repeat(100_000)),
        ("html", format!("<a title='{0}' href='https://x.example/{0}'>x</a>", "x".repeat(200_000))),
        ("html", format!("<img alt='{}'>", "<img alt=x>".repeat(40_000))),
        ("html", "<a href={#".repeat(10).replace("{#", "{# x #}").repeat(2000)),
        ("html", format!("<style>{}", "</".repeat(200_000))),
    ]
}

/// Twenty lines of about 40 KiB, each with a long text, long lists and a deep list.
fn heavy_audience() -> String {
    let mut deep = json!(1);
    for _ in 0..120 {
        deep = json!([deep]);
    }
    let line = |i: usize| {
        json!({
            "email": format!("user{i}@example.com"), "name": "n", "n": 100_000,
            "text": "x".repeat(20_000), "numbers": vec![1; 5000], "texts": vec!["Ab"; 2000],
            "deep": deep,
        })
        .to_string()
    };
    (0..20).map(|i| line(i) + "\n").collect()
}

/// Creates the costly deliveries and begins to prepare all of them.
async fn prepare_costly(client: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    for (part, source) in costly() {
        let mut definition = definition();
        definition["content"][part] = source.into();
        let id = client.create(&definition).await;
        let (status, answer) = client.upload(&id, heavy_audience()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        ids.push(id);
    }
    for id in &ids {
        let (status, answer) = client.post(&format!("/deliveries/{id}/prepare"), &json!({})).await;
        assert!(status.is_success(), "{answer}");
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_answers_while_the_worst_templates_are_prepared() {
    let daemon = Daemon::start(
        "[preparation]\ncomputing_ms = 500\n[server]\nbody_limit_kib = 2048\n\
         [public]\nurl = \"https://t.shop.example\"",
    )
    .await;
    let client = &daemon.client;
    let before_kib = daemon.resident_kib();
    let id = client.create(&definition()).await;
    let mut slowest_idle = Duration::ZERO;
    for _ in 0..300 {
        let began = Instant::now();
        client.get(&format!("/deliveries/{id}")).await;
        slowest_idle = slowest_idle.max(began.elapsed());
    }
    let ids = prepare_costly(client).await;
    let (mut slowest, mut most_kib) = (Duration::ZERO, 0);
    eventually("all preparations end", LIMIT * 2, async || {
        let mut preparing = false;
        for id in &ids {
            let began = Instant::now();
            let view = client.get(&format!("/deliveries/{id}")).await;
            slowest = slowest.max(began.elapsed());
            preparing |= view["state"] == "preparing";
        }
        most_kib = most_kib.max(daemon.resident_kib());
        (!preparing).then_some(())
    })
    .await;
    let more_kib = most_kib.saturating_sub(before_kib);
    eprintln!(
        "slowest answer {slowest:?}, before that {slowest_idle:?}; {} MiB more",
        more_kib / 1024
    );
    assert!(slowest < ANSWER, "{slowest:?}");
    assert!(more_kib < MORE_KIB, "{more_kib} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_ends_in_the_middle_of_the_worst_preparation_and_starts_again() {
    let mut daemon = Daemon::start(
        "[preparation]\ncomputing_ms = 600000\n[server]\nbody_limit_kib = 2048\ndrain_ms = 30000",
    )
    .await;
    let ids = prepare_costly(&daemon.client).await;
    assert!(daemon.terminate().await.success());
    daemon.restart().await;
    // the preparations go on, and the API answers
    for id in &ids {
        let view = daemon.client.get(&format!("/deliveries/{id}")).await;
        assert!(view["state"].is_string(), "{view}");
    }
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_that_is_stopped_ends_in_the_middle_of_its_messages() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\ncomputing_ms = 3600000").await;
    let mut definition = definition();
    let loops = "{% for i in range(99) %}{% for j in range(99) %}{{ name|upper }}{% endfor %}\
                 {% endfor %}unsubscribe";
    definition["content"]["html"] = loops.into();
    let id = app.client.create(&definition).await;
    app.client.upload(&id, audience(20_000)).await;
    app.client.post(&format!("/deliveries/{id}/prepare"), &json!({})).await;
    app.client.wait_for(&id, &["preparing"]).await;
    app.client.post(&format!("/deliveries/{id}/stop"), &json!({})).await;
    eventually("the job ends", LIMIT, async || {
        let depths = app.services.journey.preparations.jobs.queue.depths().await.unwrap();
        depths.iter().all(|depth| (depth.active, depth.in_flight) == (0, 0)).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_nest_too_deep_are_refused_with_their_line() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let id = app.client.create(&definition()).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for (depth, expected) in [(100, StatusCode::OK), (30_000, StatusCode::UNPROCESSABLE_ENTITY)]
        {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let line = format!("{{\"email\":\"b@example.com\",\"name\":\"n\",\"deep\":{deep}}}\n");
            let limited: String = match line.len() < 60_000 {
                true => line,
                false => line.chars().take(60_000).collect(),
            };
            let (status, answer) =
                app.client.upload(&id, format!("{}{limited}", audience(2))).await;
            assert_eq!(status, expected, "{depth} {answer}");
            if expected != StatusCode::OK {
                assert_eq!(answer["line"], 3, "{answer}");
            }
        }
    }
    app.stop().await;
}

/// A preparation whose messages take too much computing fails, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_that_takes_too_much_computing_fails_with_the_part_and_the_average() {
    let redis = RedisServer::start();
    let app =
        start(&redis, "[preparation]\ncomputing_ms = 100\ncomputing_us_per_message = 10").await;
    let mut definition = definition();
    let loops = "{% for i in range(150) %}{% for j in range(150) %}{{ name|upper }}\
                 {% endfor %}{% endfor %}unsubscribe";
    definition["content"]["html"] = loops.into();
    let id = app.client.create(&definition).await;
    app.client.upload(&id, audience(2000)).await;
    let view = app.client.prepare(&id).await;
    assert_eq!(view["state"], "preparation_failed", "{view}");
    let error = &view["checks"]["errors"][0];
    assert_eq!(error["field"], "content.html", "{view}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("too much computing") && message.contains("on average"), "{message}");
    app.stop().await;
}

/// The deliveries of an earlier version, which had no template language.
mod approved_earlier {
    use data_encoding::HEXLOWER;
    use versand::{deliveries::Decision, domain::delivery::digest};

    use super::*;
    use crate::harness::app::App;

    /// Prepares a delivery and then puts `html` into its stored definition, as if an earlier
    /// version had approved it.
    async fn approved(app: &App, html: &str) -> (String, String) {
        let mut definition = definition();
        definition["content"]["html"] = "to be replaced: unsubscribe".into();
        let id = app.client.create(&definition).await;
        app.client.upload(&id, audience(3)).await;
        app.client.prepare(&id).await;
        let replaced = app
            .services
            .deliveries
            .change(&id.parse().unwrap(), "versand", &[], |delivery, _| {
                let mut document = delivery.document.clone();
                document.definition.content.html = Some(html.to_owned());
                let plan = document.plan.as_mut().unwrap();
                let audience = HEXLOWER.decode(plan.audience_sha256.as_bytes()).unwrap();
                plan.digest = digest(&document.definition, &plan.settings, &audience);
                let answer = plan.digest.clone();
                Ok(Decision { state: delivery.state, document, answer, act: None })
            })
            .await
            .unwrap();
        (id, replaced.answer())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_harmless_one_is_still_sent() {
        let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
        let app = start(&redis, &relay.settings(1)).await;
        let html = "{% macro dear(who) %}Dear {{ who }}{% endmacro %}{{ dear(name) }}";
        let (id, digest) = approved(&app, html).await;
        app.client.confirm(&id, &digest).await;
        let view = app.client.wait_for(&id, &["finished"]).await;
        assert_eq!(relay.accepted(), 3, "{view}");
        app.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_nests_values_is_set_aside_before_a_recipient_is_attempted() {
        let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
        let app = start(&redis, &relay.settings(1)).await;
        let html = format!("{}{{{{ l }}}}", "{% set l=[l] %}".repeat(15_000));
        let (id, digest) = approved(&app, &html).await;
        app.client.confirm(&id, &digest).await;
        let view = eventually("the chunk is set aside", LIMIT, async || {
            let view = app.client.get(&format!("/deliveries/{id}")).await;
            (!view["set_aside"].as_array().is_none_or(Vec::is_empty)).then_some(view)
        })
        .await;
        assert_eq!(relay.accepted(), 0, "{view}");
        for entry in app.client.log(&id).await {
            assert_eq!(entry["attempts"], 0, "{entry}");
        }
        // a person ends it
        app.client.post(&format!("/deliveries/{id}/stop"), &json!({})).await;
        app.client.wait_for(&id, &["stopped"]).await;
        app.stop().await;
    }
}
