//! What the documentation names in backticks is there: files and, in the glossary, names of code.

use std::{collections::BTreeSet, fs, path::Path};

use super::links::prose;
use crate::{
    harness::{repository, text},
    tidy::table_rows,
};

const FOLDERS: &[&str] =
    &["src", "tests", "docs", "examples", "benches", "config", "fuzz", "systemd", "scripts"];

/// The files under a folder, relative to the repository.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(repository(folder)).unwrap_or_else(|e| panic!("{folder}: {e}")) {
        let path = entry.unwrap().path();
        let relative = path.strip_prefix(repository("")).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() { found.extend(files(&relative)) } else { found.push(relative) }
    }
    found.sort();
    found
}

/// The pages of the documentation.
pub fn pages() -> Vec<String> {
    let top = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(str::to_owned);
    let inner = files("docs").into_iter().filter(|path| path.ends_with(".md"));
    top.into_iter().filter(|page| repository(page).exists()).chain(inner).collect()
}

/// What stands in backticks.
fn quoted(prose: &str) -> Vec<String> {
    prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// Whether it reads like a file of the sources: `send/confirm.rs`, `due.lua`.
fn is_source(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    plain
        && [".rs", ".lua", ".py", ".sh"]
            .iter()
            .any(|ending| name.ends_with(ending) && name.len() > ending.len())
}

#[test]
fn every_source_that_is_named_exists() {
    let all: Vec<String> = FOLDERS.iter().flat_map(|folder| files(folder)).collect();
    let is_there =
        |name: &str| all.iter().any(|path| path == name || path.ends_with(&format!("/{name}")));
    let mut missing = Vec::new();
    for page in pages().iter().filter(|page| *page != "CHANGELOG.md") {
        let names: BTreeSet<String> =
            quoted(&prose(&text(repository(page)))).into_iter().filter(|n| is_source(n)).collect();
        missing.extend(
            names.into_iter().filter(|name| !is_there(name)).map(|name| format!("{page}: {name}")),
        );
    }
    assert!(missing.is_empty(), "files that are not there:\n  {}", missing.join("\n  "));
}

#[test]
fn every_term_of_the_glossary_is_in_the_code() {
    let page = text(repository("docs/glossary.md"));
    let terms = table_rows(&page, "Terms");
    assert!(terms.len() >= 40, "{} terms", terms.len());
    let names: Vec<&str> = terms.iter().map(|row| row[0].as_str()).collect();
    let sorted: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
    assert!(
        names.iter().map(|name| name.to_lowercase()).eq(sorted),
        "in the order of the alphabet, each term once"
    );
    let all: Vec<String> =
        ["src", "tests", "config"].iter().flat_map(|folder| files(folder)).collect();
    let sources: String = all
        .iter()
        .filter(|path| path.starts_with("src/"))
        .map(|path| text(repository(path)))
        .collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let words: BTreeSet<&str> = sources.split(|c: char| !is_word(c)).collect();
    let mut missing = Vec::new();
    // the cells of `table_rows` have lost their backticks
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let carrier = line.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap_or_default();
        for name in quoted(carrier) {
            let known = match Path::new(&name).extension() {
                Some(_) => {
                    all.iter().any(|path| *path == name || path.ends_with(&format!("/{name}")))
                }
                None => name.split("::").all(|part| words.contains(part)),
            };
            if !known {
                missing.push(format!("{line}: {name}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "names of the glossary that the code does not have:\n  {}",
        missing.join("\n  ")
    );
}
