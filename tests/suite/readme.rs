//! The documentation agrees with the repository: its tables, its links and the names in it.

use std::fmt::Write;

use versand::{
    config,
    domain::{
        Role,
        audience::ExclusionCause,
        delivery::{Action, DeliveryState},
        ledger::Status,
    },
    http::{ROUTES, public::PUBLIC_ROUTES},
    mail::template::{filter_names, test_names},
    metrics,
};

use crate::{
    harness::{repository, text},
    tidy::table_rows,
};

mod links;
mod names;

type Rows = Vec<Vec<String>>;

fn bare(rows: &Rows) -> Rows {
    rows.iter()
        .map(|row| row.iter().map(|cell| cell.replace('`', "").trim().to_owned()).collect())
        .collect()
}

fn code(word: &str) -> String {
    format!("`{word}`")
}

/// Compares a table with the code. A failure prints the rows that the table should have.
fn compare(page: &str, section: &str, expected: &Rows) {
    let found = table_rows(&text(repository(page)), section);
    let lines: String = expected.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
    assert!(found == bare(expected), "{page}, {section}: the rows should be\n{lines}");
}

#[test]
fn the_routes_are_those_of_the_router() {
    let role = |role: Option<Role>| role.map_or("none".to_owned(), |role| code(role.word()));
    let rows = ROUTES
        .iter()
        .map(|r| vec![r.method.to_uppercase(), code(r.path), role(r.role), r.help.to_owned()]);
    compare("docs/reference/api.md", "Routes", &rows.collect());
}

#[test]
fn the_recorded_operations_are_those_of_the_router() {
    let recorded = ROUTES.iter().filter_map(|route| Some((route, route.recorded_action()?)));
    let rows = recorded.map(|(route, action)| {
        vec![code(&format!("{} {}", route.method.to_uppercase(), route.path)), code(action)]
    });
    compare("docs/guide/audit.md", "Operations", &rows.collect());
}

#[test]
fn the_public_routes_are_those_of_the_public_listener() {
    let rows = PUBLIC_ROUTES
        .iter()
        .map(|(method, path, help)| vec![(*method).to_owned(), code(path), (*help).to_owned()]);
    compare("docs/reference/api.md", "Public routes", &rows.collect());
}

#[test]
fn the_filters_and_tests_of_templates_are_those_of_the_code() {
    let page = text(repository("docs/guide/templates.md"));
    let names = |section: &str| -> Vec<String> {
        table_rows(&page, section).into_iter().map(|row| row[0].clone()).collect()
    };
    assert_eq!(names("Filters"), filter_names().collect::<Vec<_>>());
    assert_eq!(names("Tests"), test_names().collect::<Vec<_>>());
}

#[test]
fn the_metrics_are_those_of_the_code() {
    let rows = metrics::ALL
        .iter()
        .map(|m| vec![code(m.name), format!("{:?}", m.kind).to_lowercase(), m.help.to_owned()]);
    compare("docs/reference/metrics.md", "All metrics", &rows.collect());
}

/// The sections of config/default.toml, each with its settings: name, default, comment.
fn settings(toml: &str) -> Vec<(String, Rows)> {
    let mut sections = vec![("Without a section".to_owned(), Rows::new())];
    for line in toml.lines().filter(|line| !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((section.to_owned(), Rows::new()));
        } else if let (Some((setting, why)), Some((_, rows))) =
            (line.rsplit_once(" # "), sections.last_mut())
            && let Some((key, value)) = setting.split_once('=')
        {
            rows.push(vec![code(key.trim()), code(value.trim()), why.trim().to_owned()]);
        }
    }
    sections
}

#[test]
fn the_settings_are_those_of_the_defaults() {
    let page = "docs/reference/settings.md";
    let sections = settings(config::DEFAULTS);
    let listed = config::DEFAULTS
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#'))
        .count();
    assert_eq!(
        sections.iter().map(|(_, rows)| rows.len()).sum::<usize>(),
        listed,
        "a setting was not read"
    );
    let headings: Vec<String> = text(repository(page))
        .lines()
        .filter_map(|l| l.strip_prefix("## ").map(str::to_owned))
        .collect();
    let names: Vec<&str> = sections.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(headings, names, "{page}: one heading for each section, in their order");
    for (section, rows) in &sections {
        compare(page, section, rows);
    }
}

/// The words of docs/reference/states.md for what happens to a delivery. A new action needs one.
fn word(action: Action) -> &'static str {
    match action {
        Action::Change => "change",
        Action::Prepare => "prepare",
        Action::PreparationEnds { good: true } => "preparation succeeds",
        Action::PreparationEnds { good: false } => "preparation fails",
        Action::Confirm { due: true } => "confirm, due now",
        Action::Confirm { due: false } => "confirm, due later",
        Action::Unschedule => "unschedule",
        Action::Due => "a wave is due",
        Action::Hold => "overdue",
        Action::Release => "release",
        Action::Start => "start",
        Action::Pause => "pause",
        Action::AtRest => "at rest",
        Action::Resume { started: true } => "resume, started",
        Action::Resume { started: false } => "resume, not started",
        Action::Stop => "stop",
        Action::Finish => "finish",
        Action::Reopen => "reopen",
        Action::Delete => "delete",
    }
}

/// What a state takes, and the state that follows.
fn actions(state: DeliveryState) -> String {
    let mut taken = String::new();
    for action in Action::ALL {
        if let Ok(next) = state.after(action) {
            let separator = if taken.is_empty() { "" } else { "; " };
            let _ = write!(taken, "{separator}{} → {}", word(action), code(next.word()));
        }
    }
    if taken.is_empty() { "none".to_owned() } else { taken }
}

#[test]
fn the_states_are_those_of_the_code_with_what_each_takes() {
    let page = "docs/reference/states.md";
    let found = table_rows(&text(repository(page)), "States of a delivery");
    // meaning and mover are written by hand, and stay
    let by_hand = |state: DeliveryState, at: usize| {
        let row = found.iter().find(|row| row.first().is_some_and(|name| name == state.word()));
        row.and_then(|row| row.get(at))
            .filter(|cell| !cell.is_empty())
            .cloned()
            .unwrap_or_else(|| "TO BE WRITTEN".to_owned())
    };
    let rows = DeliveryState::ALL.map(|state| {
        vec![code(state.word()), by_hand(state, 1), by_hand(state, 2), actions(state)]
    });
    compare(page, "States of a delivery", &rows.to_vec());
    assert!(!text(repository(page)).contains("TO BE WRITTEN"), "{page}");
}

/// The first column of a table.
fn names(page: &str, section: &str) -> Vec<String> {
    table_rows(&text(repository(page)), section).into_iter().map(|mut row| row.remove(0)).collect()
}

#[test]
fn actions_statuses_and_causes_are_all_explained() {
    let page = "docs/reference/states.md";
    assert_eq!(names(page, "Actions"), Action::ALL.map(word));
    assert_eq!(names(page, "Status of a recipient"), Status::ALL.map(Status::word));
    let causes =
        ExclusionCause::ALL.map(|cause| vec![code(cause.word()), cause.description().to_owned()]);
    compare(page, "Exclusion causes", &causes.to_vec());
}

#[test]
fn the_readme_stays_short() {
    let lines = text(repository("README.md")).lines().count();
    assert!(lines <= 150, "README.md has {lines} lines, 150 at most: move explanations to docs");
}

#[test]
fn the_figures_of_the_readme_are_those_of_the_measurement() {
    let measured = text(repository("docs/performance.md"));
    for row in table_rows(&text(repository("README.md")), "Why not a queue and a mail library?") {
        for figure in row[1..].iter().filter(|cell| cell.contains(|c: char| c.is_ascii_digit())) {
            assert!(
                measured.contains(figure.as_str()),
                "README.md, {}: {figure} is not in docs/performance.md",
                row[0]
            );
        }
    }
}
