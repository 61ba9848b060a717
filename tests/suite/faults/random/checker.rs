//! The verdict on a fault run, from the sink's journal, the log, the API, metrics and the faults.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::sink::Entry;

/// All that the checker knows about a run.
pub struct Evidence {
    pub recipients: usize,
    pub resend: bool,
    pub log: Vec<Value>,
    pub journal: Vec<Entry>,
    /// Conservation differences that were scraped and were not 0.
    pub differences: Vec<f64>,
    /// The most recipients that killed and fenced daemons and cut connections may leave in doubt.
    pub doubts_of_daemons: usize,
    pub finished: bool,
}

/// A property: whether it holds, and the figures or the first recipients that break it.
pub type Verdict = (&'static str, bool, String);

struct Seen<'a> {
    accepted: Vec<&'a Entry>,
    refused: bool,
}

pub fn check(evidence: &Evidence) -> Vec<Verdict> {
    let mut seen = BTreeMap::<&str, Seen>::new();
    for entry in &evidence.journal {
        let of =
            seen.entry(&entry.recipient).or_insert(Seen { accepted: Vec::new(), refused: false });
        of.refused |= entry.refused;
        if entry.accepted {
            of.accepted.push(entry);
        }
    }
    let log: BTreeMap<&str, &Value> =
        evidence.log.iter().map(|line| (line["email"].as_str().unwrap(), line)).collect();
    let copies = |email: &str| seen.get(email).map_or(0, |of| of.accepted.len());
    let status = |line: &Value| line["status"].as_str().unwrap_or_default().to_owned();
    let resent = |line: &Value| line["resent"] == true;
    let against = |bad: &dyn Fn(&str, &Value) -> bool| -> Vec<String> {
        log.iter()
            .filter(|(email, line)| bad(email, line))
            .map(|(email, line)| format!("{email} x{} {line}", copies(email)))
            .collect()
    };

    let lost = against(&|email, line| match status(line).as_str() {
        "sent" => copies(email) == 0,
        "failed" => !seen.get(email).is_some_and(|of| of.refused),
        "in_doubt" => false,
        _ => true,
    });
    let doubled = against(&|email, line| {
        let most = if evidence.resend && resent(line) { 2 } else { 1 };
        let ids: BTreeSet<&str> = seen
            .get(email)
            .map_or_else(BTreeSet::new, |of| of.accepted.iter().map(|e| &*e.message_id).collect());
        copies(email) > most || ids.len() > 1
    });
    let untrue =
        against(&|email, line| copies(email) > 0 && status(line) == "failed" && !resent(line));
    let unknown: Vec<&str> =
        seen.keys().filter(|email| !log.contains_key(*email)).copied().collect();
    let in_doubt = log.values().filter(|line| status(line) == "in_doubt").count();
    let unanswered = evidence.journal.iter().filter(|entry| entry.replied.is_none()).count();
    let garbled = evidence.journal.iter().filter(|entry| entry.garbled).count();
    let most = evidence.doubts_of_daemons + unanswered + garbled;
    let first = |of: &[String]| of.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    vec![
        ("finished without a person", evidence.finished, String::new()),
        (
            "everybody is in the log, once",
            log.len() == evidence.recipients
                && evidence.log.len() == log.len()
                && unknown.is_empty(),
            format!("{} lines", evidence.log.len()),
        ),
        ("nobody is lost", lost.is_empty(), format!("{} lost {}", lost.len(), first(&lost))),
        (
            "nobody is doubled, except by a logged resend",
            doubled.is_empty(),
            format!("{} doubled {}", doubled.len(), first(&doubled)),
        ),
        (
            "no accepted message is called failed, except after a resend",
            untrue.is_empty(),
            first(&untrue),
        ),
        (
            "no more are in doubt than the bound",
            in_doubt <= most,
            format!("{in_doubt} of {most} ({unanswered} unanswered, {garbled} garbled)"),
        ),
        (
            "the figures agree at every scrape",
            evidence.differences.is_empty(),
            format!("{:?}", evidence.differences),
        ),
    ]
}
