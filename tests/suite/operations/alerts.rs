//! The alerts: valid for Prometheus, quiet in good times, and consistent with the metrics.

use std::{collections::BTreeSet, fs, process::Command};

use versand::metrics;

use crate::harness::{LIMIT, repository, run, text};

const RULES: &str = "config/prometheus/versand.rules.yml";
const TESTS: &str = "tests/prometheus/versand.test.yml";

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    run(Command::new("promtool").args(["check", "rules"]).arg(repository(RULES)), LIMIT);
    let folder = tempfile::tempdir().unwrap();
    // promtool looks for the rules next to their tests.
    for (name, from) in [("versand.rules.yml", RULES), ("versand.test.yml", TESTS)] {
        fs::copy(repository(from), folder.path().join(name)).unwrap();
    }
    run(
        Command::new("promtool")
            .args(["test", "rules"])
            .arg(folder.path().join("versand.test.yml")),
        LIMIT,
    );
    let (rules, tests) = (text(repository(RULES)), text(repository(TESTS)));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 7);
    for alert in alerts {
        assert!(
            tests.contains(&format!("ALERTS{{alertname=\"{alert}\"")),
            "no test lets {alert} fire"
        );
    }
}

#[test]
fn alerts_use_metrics_that_exist() {
    let known: BTreeSet<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    for file in [RULES, TESTS] {
        let text = text(repository(file));
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with("versand_")).collect();
        assert!(
            named.len() > 6 && named.is_subset(&known),
            "{file}: {:?}",
            named.difference(&known)
        );
    }
}
