//! A real Prometheus scrapes two daemons that send.
//!
//! Every query of dashboards and alerts must be valid and find its metrics.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use versand::metrics;

use crate::harness::{
    LIMIT,
    client::{audience, definition},
    daemon::Daemon,
    eventually, missing,
    redis::RedisServer,
    relay::TestRelay,
    repository, run, text,
};

const RULES: &str = "config/prometheus/versand.rules.yml";
const DASHBOARDS: [&str; 2] = ["config/grafana/operations.json", "config/grafana/deliveries.json"];

struct Prometheus {
    child: Child,
    url: String,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    async fn start(daemons: &[&Daemon]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(repository(RULES), folder.path().join("versand.rules.yml")).unwrap();
        let targets: Vec<&str> =
            daemons.iter().map(|daemon| daemon.client.url.trim_start_matches("http://")).collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [versand.rules.yml]\n\
             scrape_configs: [{{ job_name: versand, static_configs: [{{ targets: {targets:?} }}] }}]\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()));
        command.arg("--web.listen-address=127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let child = command.spawn().unwrap_or_else(|error| panic!("{}", missing(&command, &error)));
        // Prometheus picks a free port, and reports it.
        let address = eventually("Prometheus listens", LIMIT, async || {
            let output = text(&log);
            let line = output.lines().find(|line| {
                line.contains("Listening on") && line.contains("address=127.0.0.1:")
            })?;
            Some(line.rsplit_once("address=")?.1.to_owned())
        })
        .await;
        Self {
            child,
            url: format!("http://{address}/api/v1"),
            http: reqwest::Client::new(),
            _folder: folder,
        }
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), query).unwrap();
        self.http.get(url).send().await.ok()?.json().await.ok()
    }

    /// The result of a query now. Panics if the query is not valid.
    async fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.ask("/query", &[("query", query)]).await.expect("Prometheus answers");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

/// The query of a panel or an alert.
struct Query {
    of: String,
    query: String,
    /// True if the legend or the summary names the daemon.
    by_daemon: bool,
}

/// The queries of every panel and every alert.
async fn queries(prometheus: &Prometheus) -> Vec<Query> {
    let mut queries = Vec::new();
    for file in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(&text(repository(file))).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(
                panel["description"].as_str().is_some_and(|why| why.len() > 10),
                "{title}: no description"
            );
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"]
                    .as_str()
                    .unwrap()
                    .replace("$__rate_interval", "10s")
                    .replace("$__range", "1h");
                let by_daemon = target["legendFormat"].as_str().unwrap().contains("{{instance}}");
                queries.push(Query { of: format!("{file}: {title}"), query, by_daemon });
            }
        }
    }
    let rules = prometheus.ask("/rules", &[]).await.unwrap();
    for rule in rules["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        assert_eq!(rule["health"], "ok", "{rule}");
        let by_daemon =
            rule["annotations"]["summary"].as_str().unwrap().contains("$labels.instance");
        let [of, query] = ["name", "query"].map(|key| rule[key].as_str().unwrap().to_owned());
        queries.push(Query { of, query, by_daemon });
    }
    queries
}

/// The metrics of a query, each with its own label matchers.
fn selectors(query: &str) -> BTreeSet<String> {
    let starts = query.match_indices("versand_").map(|(at, _)| &query[at..]);
    let selector = |rest: &str| {
        let name =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let matchers = rest[name..]
            .starts_with('{')
            .then(|| rest.find('}'))
            .flatten()
            .map_or(name, |end| end + 1);
        rest[..matchers].to_owned()
    };
    starts.map(selector).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_dashboards_and_alerts_finds_its_metrics() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(50)).await);
    let settings = format!("[redis]\nurl = \"{}\"\n{}", redis.url(), relay.settings(2));
    let (a, b) = (Daemon::start(&settings).await, Daemon::start(&settings).await);
    let prometheus = Prometheus::start(&[&a, &b]).await;
    let ready = async || {
        prometheus.ask("/query", &[("query", "count(up == 1) == 2")]).await?["data"]["result"]
            .get(0)
            .cloned()
    };
    eventually("both daemons are scraped", LIMIT, ready).await;
    let id = a.client.send(&definition(), audience(3000)).await;
    let both = "count(versand_recipients{status=\"pending\"} > 0) == 2 and sum(versand_transactions_total) > 0";
    eventually("both daemons see the delivery", LIMIT, async || prometheus.query(both).await.pop())
        .await;

    // Both daemons export shared figures, and a query counts them once.
    let shown = prometheus
        .query("max without (instance, pod) (versand_deliveries_moving{state=\"in_progress\"})")
        .await;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["value"][1], "1", "{shown:?}");
    assert_eq!(prometheus.query("versand_deliveries_moving{state=\"in_progress\"}").await.len(), 2);
    relay.catcher.change_rules(|rules| rules.delay = Duration::ZERO);
    a.client.wait_for(&id, &["finished"]).await;
    a.client.post(&format!("/deliveries/{id}/statistics"), &serde_json::json!({})).await;

    let tasks = "count by (task) (versand_scheduler_last_success_timestamp_seconds)";
    let scraped = async || (prometheus.query(tasks).await.len() >= 7).then_some(());
    eventually("seven tasks have succeeded", LIMIT, scraped).await;
    let ratios = async || {
        (prometheus.query("versand_delivery_delivered_ratio").await.len() == 2).then_some(())
    };
    eventually("both daemons show the figures of the delivery", LIMIT, ratios).await;
    let queries = queries(&prometheus).await;
    assert!(queries.len() > 40);
    for Query { of, query, by_daemon } in queries {
        let given = prometheus.query(&query).await;
        let doubled = given.iter().any(|series| series["metric"]["instance"].is_string());
        assert!(
            by_daemon || !doubled,
            "{of} shows a shared figure once for each daemon: {given:?}"
        );
        // A comparison or a ratio is empty in good times: then its inputs must exist.
        if given.is_empty() {
            for selector in selectors(&query) {
                assert!(
                    !prometheus.query(&selector).await.is_empty(),
                    "{of}: {selector} is missing"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_types_follow_the_conventions_of_prometheus() {
    let daemon = Daemon::start("").await;
    let id = daemon.client.send(&definition(), audience(10)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    daemon.metric("versand_start_pending_seconds").await;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("metrics");
    fs::write(
        &page,
        reqwest::get(format!("{}/metrics", daemon.client.url))
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap(),
    )
    .unwrap();
    let output = run(
        Command::new("sh")
            .args(["-c", "exec promtool check metrics <\"$1\" 2>&1", "sh"])
            .arg(&page),
        LIMIT,
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_deliveries_and_preparations_are_counted() {
    let daemon = Daemon::start("").await;
    let refused = (0..3)
        .map(|i| format!("{{\"email\":\"refuse{i}@example.com\",\"name\":\"Ann\"}}\n"))
        .collect();
    let id = daemon.client.send(&definition(), refused).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let mut unpreparable = definition();
    unpreparable["content"]["subject"] = "{{ nobody_has_this }}".into();
    let id = daemon.client.create(&unpreparable).await;
    daemon.client.upload(&id, audience(1)).await;
    assert_eq!(daemon.client.prepare(&id).await["state"], "preparation_failed");
    let expected = [
        ("versand_deliveries_ended_total{outcome=\"failed\"}", 1.0),
        ("versand_deliveries_ended_total{outcome=\"finished\"}", 0.0),
        ("versand_failures_total{type=\"hard\"}", 3.0),
        ("versand_failures_total{type=\"soft\"}", 0.0),
        ("versand_preparations_total{outcome=\"prepared\"}", 1.0),
        ("versand_preparations_total{outcome=\"failed\"}", 1.0),
    ];
    for (series, value) in expected {
        // The counter changes a moment after the state is visible.
        eventually(series, LIMIT, async || {
            daemon.series(series).await.filter(|found| *found == value)
        })
        .await;
    }
}

#[test]
fn dashboards_use_metrics_that_exist() {
    for file in DASHBOARDS {
        let dashboard = text(repository(file));
        let named = selectors(&dashboard);
        assert!(named.len() > 10, "{file}");
        for name in named {
            let name = name.split('{').next().unwrap();
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(metrics::ALL.iter().any(|metric| metric.name == name), "{file}: {name}");
        }
    }
}
