//! No circle of files: neither by `use` nor by a call of a method that another file defines.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, is_word, leading_word, refuse, sources};

type Edges = BTreeMap<String, BTreeMap<String, String>>;

/// Every module of src by its path, such as `send::chunk::replay`, with its code.
struct Modules {
    code: BTreeMap<String, String>,
    /// (module, name) of a `pub use` to the path it stands for.
    exports: BTreeMap<(String, String), String>,
}

/// `a::{b, c::d as e}` to (`a::b`, `b`) and (`a::c::d`, `e`).
fn leaves(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    let Some(at) = tree.find('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = path.trim().trim_end_matches("::self").to_owned();
        let last = path.rsplit("::").next().unwrap_or_default().to_owned();
        return vec![(path, if alias.is_empty() { last } else { alias.trim().to_owned() })];
    };
    let (prefix, list) = (&tree[..at], tree[at + 1..].trim_end().trim_end_matches('}'));
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (i, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = list[start..i].trim();
                if !part.is_empty() {
                    found.extend(leaves(&balanced(&format!("{prefix}{part}"))));
                }
                start = i + 1;
            }
            _ => {}
        }
    }
    found
}

/// Adds the closing braces that the trimming has cut off.
fn balanced(tree: &str) -> String {
    let missing = tree.matches('{').count().saturating_sub(tree.matches('}').count());
    format!("{tree}{}", "}".repeat(missing))
}

fn uses(code: &str) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let line_start = rest[..at].rfind('\n').map_or(0, |i| i + 1);
        let before = rest[line_start..at].trim();
        let end = rest[at..].find(';').map_or(rest.len(), |i| at + i);
        if before.is_empty() || before.starts_with("pub") {
            found.push((before.starts_with("pub"), rest[at + 4..end].replace('\n', " ")));
        }
        rest = &rest[end..];
    }
    found
}

impl Modules {
    fn of(all: &[Source]) -> Self {
        let mut modules = Self { code: BTreeMap::new(), exports: BTreeMap::new() };
        for source in all {
            let code = source.code();
            let code = code.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            modules.code.insert(source.module_path(), code);
        }
        let exported = |(module, code): (&String, &String)| {
            let public = uses(code).into_iter().filter(|(public, _)| *public);
            let items = public.flat_map(|(_, tree)| leaves(&tree)).collect::<Vec<_>>();
            (module.clone(), items)
        };
        let exports: Vec<_> = modules.code.iter().map(exported).collect();
        for (module, items) in exports {
            for (path, name) in items {
                let target = modules.absolute(&module, &path);
                modules.exports.insert((module.clone(), name), target);
            }
        }
        modules
    }

    /// Turns a path that is written in `module` into a path from the root of the crate.
    fn absolute(&self, module: &str, path: &str) -> String {
        let mut base: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
        let mut parts = path.split("::").map(str::trim).peekable();
        match parts.peek().copied() {
            Some("crate") => {
                base.clear();
                parts.next();
            }
            Some("self") => {
                parts.next();
            }
            Some("super") => {
                while parts.next_if_eq(&"super").is_some() {
                    base.pop();
                }
            }
            Some(first) if self.code.contains_key(&join(&base, first)) => {}
            _ => return String::new(),
        }
        base.extend(parts);
        base.join("::")
    }

    /// The module that defines the item with this path from the root.
    fn home(&self, path: &str) -> Option<String> {
        let parts: Vec<&str> = path.split("::").collect();
        let module = (0..=parts.len()).rev().map(|n| parts[..n].join("::"));
        let module = module.into_iter().find(|module| self.code.contains_key(module))?;
        let rest = parts.get(module.split("::").filter(|part| !part.is_empty()).count());
        let export = rest.and_then(|name| self.exports.get(&(module.clone(), (*name).to_owned())));
        match export {
            Some(target) if *target != path => self.home(target),
            _ => Some(module),
        }
    }

    fn edges_of_uses(&self, edges: &mut Edges) {
        for (module, code) in &self.code {
            let trees = uses(code).into_iter().filter(|(public, _)| !public);
            let mut paths: Vec<String> =
                trees.flat_map(|(_, tree)| leaves(&tree)).map(|(path, _)| path).collect();
            for root in ["crate::", "super::"] {
                for (at, _) in code.match_indices(root) {
                    if !code[..at].ends_with(|c: char| c == ':' || is_word(c)) {
                        let end = code[at..].find(|c: char| c != ':' && !is_word(c));
                        paths.push(code[at..at + end.unwrap_or(0)].to_owned());
                    }
                }
            }
            for path in paths {
                let absolute = self.absolute(module, &path);
                if let Some(home) = self.home(&absolute).filter(|_| !absolute.is_empty()) {
                    self.note(edges, module, &home, &format!("use {path}"));
                }
            }
        }
    }

    /// Leaves out the module of a folder, which only lists its files.
    fn note(&self, edges: &mut Edges, from: &str, to: &str, why: &str) {
        let lists = |module: &str| {
            module.is_empty()
                || self.code.keys().any(|other| other.starts_with(&format!("{module}::")))
        };
        if from != to && !lists(from) && !lists(to) {
            edges
                .entry(from.to_owned())
                .or_default()
                .entry(to.to_owned())
                .or_insert(why.to_owned());
        }
    }

    fn edges_of_methods(&self, edges: &mut Edges) {
        let (mut fields, mut methods) = (BTreeMap::new(), BTreeMap::new());
        for (module, code) in &self.code {
            for (name, body) in blocks(code, "struct ") {
                for (field, kind) in field_types(body) {
                    fields.insert((name.to_owned(), field), kind);
                }
            }
            for (name, body) in blocks(code, "impl") {
                for (at, _) in body.match_indices("fn ") {
                    let method = leading_word(&body[at + 3..]);
                    let place = (name.to_owned(), method.to_owned());
                    methods.entry(place).or_insert_with(|| module.clone());
                }
            }
        }
        for (module, code) in &self.code {
            for (name, body) in blocks(code, "impl") {
                for (at, _) in body.match_indices("self") {
                    if body[..at].ends_with(is_word) {
                        continue;
                    }
                    let chain = chain(&body[at + 4..]);
                    let Some((method, path)) = chain.split_last() else { continue };
                    let owner = path.iter().try_fold(name.to_owned(), |owner, field| {
                        fields.get(&(owner, field.clone())).cloned()
                    });
                    let home = owner.and_then(|owner| methods.get(&(owner, method.clone())));
                    if let Some(home) = home {
                        let why = format!("calls {method}()");
                        self.note(edges, module, home, &why);
                    }
                }
            }
        }
    }
}

fn join(base: &[&str], last: &str) -> String {
    base.iter().copied().chain([last]).collect::<Vec<_>>().join("::")
}

/// The top-level blocks that begin with `keyword`, each with the name of its type.
fn blocks<'a>(code: &'a str, keyword: &str) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        let bare = line.trim_start_matches("pub ").trim_start_matches("pub(super) ");
        let bare = bare.trim_start_matches("pub(crate) ");
        if let Some(rest) = bare.strip_prefix(keyword)
            && line.starts_with(|c: char| c.is_alphabetic())
        {
            let head = if rest.starts_with('<') {
                rest.split_once("> ").map_or("", |(_, r)| r)
            } else {
                rest
            };
            let head = head.trim();
            let head = head.split_once(" for ").map_or(head, |(_, kind)| kind);
            let end = code[at..].find("\n}").map_or(code.len(), |end| at + end);
            found.push((leading_word(head), &code[at..end]));
        }
        at += line.len();
    }
    found
}

fn field_types(body: &str) -> Vec<(String, String)> {
    let lines = body.lines().skip(1).filter_map(|line| line.trim().split_once(": "));
    let plain = |(name, kind): (&str, &str)| {
        let name = name.rsplit(' ').next().unwrap_or_default().to_owned();
        let kind = kind.trim_end_matches(',').trim_start_matches('&');
        let kind = kind.strip_prefix("Arc<").map_or(kind, |inner| inner.trim_end_matches('>'));
        (name, leading_word(kind.rsplit("::").next().unwrap_or_default()).to_owned())
    };
    lines.map(plain).collect()
}

/// The names of `.a.b.method(`; empty if it does not end in a call.
fn chain(rest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = rest;
    loop {
        let Some(after) = rest.trim_start().strip_prefix('.') else { return Vec::new() };
        let name = leading_word(after);
        names.push(name.to_owned());
        rest = &after[name.len()..];
        if rest.starts_with('(') {
            return names;
        }
    }
}

/// The first circle that is found, with why each file needs the next one.
fn circle(edges: &Edges) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    for start in edges.keys() {
        let mut path = vec![start.clone()];
        if let Some(found) = search(edges, &mut path, &mut done) {
            return Some(found);
        }
    }
    None
}

fn search(
    edges: &Edges,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    let here = path.last()?.clone();
    if done.contains(&here) {
        return None;
    }
    for (next, why) in edges.get(&here).into_iter().flatten() {
        if let Some(at) = path.iter().position(|module| module == next) {
            let mut steps: Vec<String> = path[at..]
                .windows(2)
                .map(|pair| format!("{} -> {} ({})", pair[0], pair[1], edges[&pair[0]][&pair[1]]))
                .collect();
            steps.push(format!("{here} -> {next} ({why})"));
            return Some(steps);
        }
        path.push(next.clone());
        let found = search(edges, path, done);
        if found.is_some() {
            return found;
        }
        path.pop();
    }
    done.insert(here);
    None
}

fn edges(all: &[Source]) -> Edges {
    let modules = Modules::of(all);
    let mut edges = Edges::new();
    modules.edges_of_uses(&mut edges);
    modules.edges_of_methods(&mut edges);
    edges
}

#[test]
fn no_files_form_a_circle() {
    let found = circle(&edges(&sources("src", &["rs"])));
    refuse("a circle of files", &found.unwrap_or_default());
}

#[test]
fn circles_by_use_and_by_method_are_seen() {
    let of = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let rooms = || {
        vec![
            of("src/lib.rs", "pub mod a;\n"),
            of("src/a/mod.rs", "mod one;\nmod two;\npub use one::One;\npub use two::Two;\n"),
        ]
    };
    let mut by_use = rooms();
    by_use.push(of("src/a/one.rs", "use super::two::Two;\npub struct One;\n"));
    by_use.push(of("src/a/two.rs", "use crate::a::{One, Other};\npub struct Two;\n"));
    assert!(circle(&edges(&by_use)).is_some());
    let mut by_method = rooms();
    let one = "use super::two::Two;\npub struct One {\n    pub two: Two,\n}\n\nimpl One {\n    fn a(&self) {}\n}\n";
    by_method.push(of("src/a/one.rs", one));
    by_method.push(of("src/a/two.rs", "pub struct Two;\n\nimpl Two {\n    fn b(&self) {}\n}\n"));
    assert!(circle(&edges(&by_method)).is_none());
    let more =
        "impl One {\n    fn c(&self) {\n        self.two.b();\n        self.a();\n    }\n}\n";
    by_method.push(of("src/a/more.rs", more));
    let back = "pub struct Two {\n    pub one: One,\n}\n\nimpl Two {\n    fn b(&self) {\n        self.one.c();\n    }\n}\n";
    by_method[3] = of("src/a/two.rs", back);
    assert!(circle(&edges(&by_method)).is_some());
}
