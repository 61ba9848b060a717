//! Every relative link of the documentation leads to a file, and to a heading if it names one.

use std::path::Path;

use super::names::pages;
use crate::harness::{repository, text};

/// The Markdown text without its fenced blocks, which are no prose.
pub fn prose(markdown: &str) -> String {
    let mut inside = false;
    let lines = markdown.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !fence && !inside
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where the links of a Markdown text lead.
fn targets(markdown: &str) -> Vec<String> {
    let prose = prose(markdown);
    let links = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    links.map(|(target, _)| target.trim().to_owned()).collect()
}

/// The anchor that GitHub and others give to a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn mistake(page: &str, target: &str) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let file =
        if path.is_empty() { repository(page) } else { repository("").join(folder).join(path) };
    if !file.exists() {
        return Some(format!("{page}: there is no {target}"));
    }
    if heading.is_empty() {
        return None;
    }
    let text = prose(&text(&file));
    let is_there =
        text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading);
    (!is_there).then(|| format!("{page}: there is no heading for {target}"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut mistakes = Vec::new();
    let mut links = 0;
    for page in pages() {
        let found = targets(&text(repository(&page)));
        links += found.len();
        mistakes.extend(found.iter().filter_map(|target| mistake(&page, target)));
    }
    assert!(links > 20, "only {links} links were found");
    assert!(mistakes.is_empty(), "links that lead nowhere:\n  {}", mistakes.join("\n  "));
}

#[test]
fn a_link_that_leads_nowhere_is_seen() {
    assert_eq!(targets("[a](b.md#c) ![d](e.svg)\n```\n[no](no)\n```"), ["b.md#c", "e.svg"]);
    assert_eq!(anchor("## What Redis promises, `now`"), "what-redis-promises-now");
    assert!(mistake("README.md", "no-such-file.md").is_some());
    assert!(mistake("README.md", "#no-such-heading").is_some());
    assert!(mistake("docs/queue.md", "../README.md").is_none());
    assert!(mistake("README.md", "https://example.com/x").is_none());
}
