//! The README says what the code does: its tables are compared with the code.

use versand::{domain::role::Role, http::ROUTES, metrics};

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
    let role = |role: Option<Role>| role.map_or("none".to_owned(), |role| format!("`{}`", role.word()));
    let rows = ROUTES.iter().map(|r| vec![r.method.to_uppercase(), format!("`{}`", r.path), role(r.role), r.help.to_owned()]);
    differs("Routes", &rows.collect::<Vec<_>>());
}

#[test]
fn the_metrics_of_the_readme_are_those_of_the_code() {
    let rows =
        metrics::ALL.iter().map(|m| vec![format!("`{}`", m.name), format!("{:?}", m.kind).to_lowercase(), m.help.to_owned()]);
    differs("Metrics", &rows.collect::<Vec<_>>());
}
