//! One word, one thing: names of public types and of files; each folder says what it owns.

use std::collections::BTreeMap;

use super::{Source, leading_word, refuse, sources};

/// The names of the public types of a file.
fn public_types(source: &Source) -> Vec<String> {
    let code = source.code();
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let kinds = ["pub struct ", "pub enum ", "pub trait ", "pub type "];
    let named = |line: &str| {
        let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
        Some(leading_word(rest).to_owned())
    };
    code.lines().filter_map(named).collect()
}

/// `lease_validity` for `LeaseValidity`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

fn types_by_name(all: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for source in all {
        for name in public_types(source) {
            found.entry(name).or_default().push(source.path.clone());
        }
    }
    found
}

fn named_twice(all: &[Source]) -> Vec<String> {
    let twice = types_by_name(all).into_iter().filter(|(_, paths)| paths.len() > 1);
    twice.map(|(name, paths)| format!("{name}: {}", paths.join(", "))).collect()
}

/// Files that bear the name of a public type that another file defines.
fn misnamed(all: &[Source]) -> Vec<String> {
    let types = types_by_name(all);
    let by_file: BTreeMap<String, &String> = types.keys().map(|name| (snake(name), name)).collect();
    let stem = |source: &Source| {
        source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
    };
    let wrong = |source: &&Source| {
        by_file.get(&stem(source)).is_some_and(|name| !types[*name].contains(&source.path))
    };
    all.iter()
        .filter(wrong)
        .map(|source| format!("{}: {} is defined elsewhere", source.path, by_file[&stem(source)]))
        .collect()
}

#[test]
fn a_public_type_name_means_one_thing() {
    refuse("public types of the same name", &named_twice(&sources("src", &["rs"])));
}

#[test]
fn a_file_with_the_name_of_a_type_defines_it() {
    refuse("files and the types they are named like", &misnamed(&sources("src", &["rs"])));
}

#[test]
fn every_folder_says_what_it_owns() {
    let mut mistakes = Vec::new();
    for source in sources("src", &["rs"]).iter().filter(|s| s.path.ends_with("/mod.rs")) {
        let head = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        if !(5..=30).contains(&head) {
            mistakes.push(format!("{}: {head} lines of //!, 5 to 30 are wanted", source.path));
        }
    }
    for source in sources("src", &["rs"]) {
        let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if folder != "src" && !crate::harness::repository(&format!("{folder}/mod.rs")).exists() {
            mistakes.push(format!("{folder}: has no mod.rs"));
        }
    }
    refuse("mod.rs says what the folder owns, its entry points and what is not in it", &mistakes);
}

#[test]
fn names_that_mean_two_things_are_seen() {
    let of = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let twice = [of("src/a/x.rs", "pub struct Turn;\n"), of("src/b/y.rs", "pub enum Turn {}\n")];
    assert_eq!(named_twice(&twice), ["Turn: src/a/x.rs, src/b/y.rs"]);
    let elsewhere = [of("src/a/due_waves.rs", ""), of("src/b.rs", "pub struct DueWaves;\n")];
    assert_eq!(misnamed(&elsewhere), ["src/a/due_waves.rs: DueWaves is defined elsewhere"]);
    assert_eq!(snake("LeaseValidity"), "lease_validity");
}
