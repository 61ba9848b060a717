//! The rules of the house that no lint knows: layers, sizes, heads, names, documented settings.

mod circles;
mod names;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::harness::{repository, text};

/// What each top-level module of src may name with `crate::`. Dependencies point one way.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &["domain"]),
    ("metrics", &["domain"]),
    ("clock", &["domain"]),
    ("daemon", &[]),
    ("redis_server", &[]),
    ("identity", &["domain", "config"]),
    ("store", &["domain", "config", "metrics"]),
    ("mail", &["domain", "config", "metrics", "live"]),
    ("queue", &["domain", "config", "metrics", "clock"]),
    ("live", &[]),
    ("backup", &["domain", "store", "redis_server"]),
    ("audit", &["domain", "store"]),
    ("deliveries", &["domain", "metrics", "store", "queue", "audit"]),
    ("report", &["domain", "clock", "store", "mail", "deliveries"]),
    (
        "feedback",
        &[
            "domain",
            "config",
            "metrics",
            "clock",
            "daemon",
            "live",
            "store",
            "mail",
            "deliveries",
            "report",
        ],
    ),
    (
        "send",
        &[
            "domain",
            "config",
            "metrics",
            "clock",
            "daemon",
            "live",
            "identity",
            "store",
            "mail",
            "queue",
            "deliveries",
            "report",
            "feedback",
        ],
    ),
    (
        "observe",
        &["domain", "config", "metrics", "clock", "store", "mail", "queue", "deliveries", "send"],
    ),
    ("worker", &["domain", "queue", "send"]),
    ("scheduler", &["metrics", "daemon", "send", "feedback", "observe"]),
    (
        "http",
        &[
            "domain",
            "config",
            "metrics",
            "clock",
            "daemon",
            "live",
            "identity",
            "store",
            "mail",
            "queue",
            "audit",
            "deliveries",
            "report",
            "feedback",
            "send",
        ],
    ),
];
/// The wiring modules. They may name everything, and no layer may name them.
const WIRING: &[&str] = &["app", "main", "lib", "cli", "demo", "logging"];
/// The modules that may use each crate of Redis. Nobody would find a key that another module
/// writes.
const REDIS: &[(&str, &[&str])] = &[("redis", &["store", "queue"]), ("apalis_redis", &["queue"])];
/// What the domain must not touch: it is pure, and `now` is an argument.
const IMPURE: &[&str] = &[
    "async fn",
    "tokio::",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "::now()",
    "getrandom::",
];
const BANNED_WORDS: &[&str] = &[
    "manager", "util", "utils", "helper", "helpers", "common", "data", "info", "process", "handle",
];

/// The exceptions, each with the reason why it is right. An empty list is best.
const ALLOWED_LENGTHS: &[(&str, usize, &str)] = &[];
const ALLOWED_NAMES: &[(&str, &str)] = &[];

struct Source {
    /// Relative to the repository.
    path: String,
    text: String,
}

impl Source {
    /// The first folder or file under src, without its extension.
    fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split(['/', '.']).next().unwrap_or(inner)
    }

    /// The path of its module, such as `send::chunk::replay`.
    fn module_path(&self) -> String {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let inner = inner.trim_end_matches("mod").trim_end_matches('/');
        if ["lib", "main"].contains(&inner) { String::new() } else { inner.replace('/', "::") }
    }

    /// Without comments, so that a doc link is not a dependency.
    fn code(&self) -> String {
        let bare = self.text.lines().map(|line| match line.find("//") {
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        });
        bare.collect::<Vec<_>>().join("\n")
    }
}

fn sources(folder: &str, extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![repository(folder)];
    while let Some(next) = folders.pop() {
        let entries = fs::read_dir(&next).unwrap_or_else(|e| panic!("{}: {e}", next.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|x| extensions.iter().any(|y| x == *y)) {
                found.push(source(path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

fn source(path: PathBuf) -> Source {
    let relative = path.strip_prefix(repository("")).unwrap();
    Source { path: relative.to_str().unwrap().to_owned(), text: text(&path) }
}

fn refuse(what: &str, mistakes: &[String]) {
    assert!(mistakes.is_empty(), "{what}:\n  {}", mistakes.join("\n  "));
}

/// The first segments after each `root::` that is a path's start: `crate::{a::b, c}` gives a and c.
fn named_after<'a>(code: &'a str, root: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{root}::")) {
        let inside_a_longer_path = code[..at].ends_with(|c: char| c == ':' || is_word(c));
        if !inside_a_longer_path {
            let rest = &code[at + root.len() + 2..];
            names.extend(first_segments(rest));
        }
    }
    names
}

fn first_segments(rest: &str) -> Vec<&str> {
    let Some(list) = rest.strip_prefix('{') else {
        return vec![leading_word(rest)];
    };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                names.push(leading_word(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

fn leading_word(text: &str) -> &str {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn layer_mistakes(source: &Source) -> Vec<String> {
    let module = source.module();
    if WIRING.contains(&module) {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{}: {module} has no row in LAYERS", source.path)];
    };
    let code = source.code();
    let mut mistakes = Vec::new();
    for named in named_after(&code, "crate") {
        if named != module && !allowed.contains(&named) {
            mistakes.push(format!("{}: {module} may not use {named}", source.path));
        }
    }
    if reaches_the_root_by_super(source) {
        mistakes.push(format!("{}: write crate:: for another layer", source.path));
    }
    mistakes
}

/// Whether a `super::` leaves its layer. The check of the table would not see it.
fn reaches_the_root_by_super(source: &Source) -> bool {
    let code = source.code();
    // Tests of a file live in a module of their own, one level further down.
    let body = code.split("#[cfg(test)]").next().unwrap_or(&code);
    let parts = source.path.split('/').count() - 1;
    let depth = if source.path.ends_with("/mod.rs") { parts - 1 } else { parts };
    body.contains(&"super::".repeat(depth)) || code.contains(&"super::".repeat(depth + 1))
}

#[test]
fn dependencies_point_one_way() {
    let mistakes: Vec<_> = sources("src", &["rs"]).iter().flat_map(layer_mistakes).collect();
    refuse("layers (see LAYERS)", &mistakes);
}

#[test]
fn only_the_store_and_the_queue_speak_to_redis() {
    let mut mistakes = Vec::new();
    for source in sources("src", &["rs"]) {
        for (part, users) in REDIS {
            let used = !named_after(&source.code(), part).is_empty();
            if used && !users.contains(&source.module()) {
                mistakes.push(format!("{}: uses {part}", source.path));
            }
        }
    }
    refuse("Redis outside its layer", &mistakes);
}

#[test]
fn the_domain_is_pure() {
    let mut mistakes = Vec::new();
    for source in sources("src/domain", &["rs"]) {
        let code = source.code();
        let found = IMPURE.iter().filter(|impure| code.contains(**impure));
        mistakes.extend(found.map(|impure| format!("{}: {impure}", source.path)));
    }
    refuse("the domain does no I/O, waits for nothing and has no clock", &mistakes);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut mistakes = Vec::new();
    for source in sources("src", &["rs"]).iter().chain(&sources("tests", &["rs"])) {
        let mut lines = source.text.lines();
        let (first, second) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let says = first.strip_prefix("//! ").is_some_and(|head| head.len() > 10);
        // More text may follow after an empty line, such as a layout or a map.
        if !says || (second.starts_with("//!") && second != "//!") {
            mistakes.push(source.path.clone());
        }
    }
    refuse("the first line says in one sentence, after //!, what the file is for", &mistakes);
}

#[test]
fn files_stay_short() {
    let mut mistakes = Vec::new();
    for (folder, limit) in [("src", 400), ("tests", 500)] {
        for source in sources(folder, &["rs", "lua"]) {
            let exception = ALLOWED_LENGTHS.iter().find(|(path, ..)| *path == source.path);
            let limit = exception.map_or(limit, |(_, allowed, _)| *allowed);
            let lines = source.text.lines().count();
            if lines > limit {
                mistakes.push(format!("{}: {lines} lines, {limit} at most", source.path));
            }
        }
    }
    refuse("split these, or say in ALLOWED_LENGTHS why not", &mistakes);
}

/// The names that code gives to types and modules.
fn declared(code: &str) -> Vec<&str> {
    let mut words = code.split_whitespace();
    let mut names = Vec::new();
    while let Some(word) = words.next() {
        if ["struct", "enum", "trait", "type", "mod"].contains(&word) {
            names.extend(words.next().map(leading_word));
        }
    }
    names
}

/// The words of a name. `TokenManager` and `token_manager` both have the words token and manager.
fn words(name: &str) -> Vec<String> {
    let mut spaced = String::new();
    for c in name.chars() {
        if c.is_uppercase() {
            spaced.push('_');
        }
        spaced.extend(c.to_lowercase());
    }
    spaced.split('_').map(str::to_owned).collect()
}

fn says_nothing(name: &str) -> bool {
    let banned = words(name).iter().any(|word| BANNED_WORDS.contains(&word.as_str()));
    banned && !ALLOWED_NAMES.iter().any(|(allowed, _)| *allowed == name)
}

#[test]
fn names_say_something() {
    let mut mistakes = Vec::new();
    for source in sources("src", &["rs", "lua"]).iter().chain(&sources("tests", &["rs"])) {
        let inner = Path::new(&source.path).with_extension("");
        let code = source.code();
        let parts = inner.iter().filter_map(|part| part.to_str());
        let names = parts.chain(declared(&code));
        let bad = names.filter(|name| says_nothing(name));
        mistakes.extend(bad.map(|name| format!("{}: {name}", source.path)));
    }
    refuse("names that fit anything (BANNED_WORDS)", &mistakes);
}

/// The settings of a TOML text whose line does not end in a comment.
fn unexplained(settings: &str) -> Vec<String> {
    let keys = settings.lines().filter_map(|line| {
        let (key, rest) = line.split_once('=')?;
        let is_key = !key.trim().is_empty() && key.trim().chars().all(is_word);
        let explained = rest.rsplit_once(" # ").is_some_and(|(_, why)| why.len() > 3);
        (is_key && !explained).then(|| key.trim().to_owned())
    });
    keys.collect()
}

#[test]
fn every_setting_is_explained() {
    refuse(
        "settings in config/default.toml without a comment",
        &unexplained(&text(repository("config/default.toml"))),
    );
}

/// The rows of the first table under the heading `section` of a Markdown text.
///
/// The head of the table is left out, and backticks are dropped.
pub fn table_rows(markdown: &str, section: &str) -> Vec<Vec<String>> {
    let is_heading =
        |line: &&str| line.starts_with('#') && line.trim_matches(['#', ' ']) == section;
    let mut lines = markdown.lines().skip_while(|line| !is_heading(line));
    assert!(lines.next().is_some(), "no section {section:?}");
    let rest = lines.take_while(|line| !line.starts_with('#'));
    let table = rest.skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let inner = row.trim().trim_matches('|');
        let cells = inner.split('|').map(|cell| cell.trim().replace('`', ""));
        cells.collect()
    };
    rows.map(cells).collect()
}

#[cfg(test)]
mod rules {
    //! Each rule sees the mistake it is there for.
    use super::*;

    fn of(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_layer_that_reaches_up_is_seen() {
        let nested = "use crate::{\n    domain::{delivery, role},\n    http::page,\n};";
        let mistakes = layer_mistakes(&of("src/send/confirm.rs", nested));
        assert_eq!(mistakes, ["src/send/confirm.rs: send may not use http"]);
        let inline = "fn f() -> crate::worker::W { todo() }";
        assert_eq!(layer_mistakes(&of("src/http/mod.rs", inline)).len(), 1);
        assert_eq!(layer_mistakes(&of("src/new.rs", "")).len(), 1);
        assert_eq!(layer_mistakes(&of("src/app.rs", inline)).len(), 0);
        let link = "//! See [`crate::http`].\nuse crate::store; // not crate::http";
        assert_eq!(layer_mistakes(&of("src/send/mod.rs", link)).len(), 0);
    }

    #[test]
    fn a_way_around_the_table_is_seen() {
        let around = "use super::super::http;";
        assert_eq!(layer_mistakes(&of("src/send/confirm.rs", around)).len(), 1);
        assert_eq!(layer_mistakes(&of("src/send/mod.rs", "use super::http;")).len(), 1);
        assert_eq!(layer_mistakes(&of("src/send/a.rs", "use super::http;")).len(), 0);
        let tests = "#[cfg(test)]\nmod tests { use super::*; }";
        assert_eq!(layer_mistakes(&of("src/queue.rs", tests)).len(), 0);
    }

    #[test]
    fn redis_is_told_from_its_namesakes() {
        let own = "use crate::store::redis::Key; let a = config.redis; apalis_redis::go();";
        assert!(named_after(own, "redis").is_empty());
        assert!(named_after("let x = redis::cmd(\"GET\");", "redis").contains("cmd"));
    }

    #[test]
    fn names_that_say_nothing_are_seen() {
        assert!(says_nothing("TokenManager") && says_nothing("utils"));
        assert!(!says_nothing("Database") && !says_nothing("Informant"));
        assert_eq!(declared("pub struct A<T>(T); mod b { enum C {} }"), ["A", "b", "C"]);
    }

    #[test]
    fn a_setting_without_a_comment_is_seen() {
        let settings = "# head = 1\n[a]\nx = 1 # what x is\ny = \"#\"\nz = 3 #\n";
        assert_eq!(unexplained(settings), ["y", "z"]);
    }

    #[test]
    fn a_table_is_read() {
        let page = "# A\n| no |\n## Routes\ntext\n\n| route | what |\n|---|---|\n| `GET /x` | reads |\n\n# B\n";
        assert_eq!(table_rows(page, "Routes"), [["GET /x", "reads"]]);
    }
}
