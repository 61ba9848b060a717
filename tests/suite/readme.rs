//! The README says what the code does: its tables are compared with the code.

use versand::{
    domain::role::Role,
    http::{PUBLIC_ROUTES, ROUTES},
    metrics,
};

use crate::{
    harness::{repository, text},
    tidy::table_rows,
};

/// What the README's table must be, for whoever has to write it anew.
fn differs(section: &str, expected: &[Vec<String>]) {
    let found = table_rows(&text(repository("README.md")), section);
    let lines = |rows: &[Vec<String>]| rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect::<String>();
    assert!(found == expected, "README, {section}: it should be\n{}", lines(expected));
}

#[test]
fn the_routes_of_the_readme_are_those_of_the_router() {
    let role = |role: Option<Role>| role.map_or("none".to_owned(), |role| role.word().to_owned());
    let rows = ROUTES.iter().map(|r| vec![r.method.to_uppercase(), r.path.to_owned(), role(r.role), r.help.replace('`', "")]);
    differs("Routes", &rows.collect::<Vec<_>>());
}

#[test]
fn the_public_routes_of_the_readme_are_those_of_the_public_listener() {
    let rows = PUBLIC_ROUTES.iter().map(|(method, path, help)| [method, path, help].map(|cell| (*cell).to_owned()).to_vec());
    differs("Public routes", &rows.collect::<Vec<_>>());
}

#[test]
fn the_metrics_of_the_readme_are_those_of_the_code() {
    let rows =
        metrics::ALL.iter().map(|m| vec![m.name.to_owned(), format!("{:?}", m.kind).to_lowercase(), m.help.replace('`', "")]);
    differs("Metrics", &rows.collect::<Vec<_>>());
}
