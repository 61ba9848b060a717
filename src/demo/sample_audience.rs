//! The audience of the demo: varied, with recipients that are excluded, refused or deferred.

use serde_json::json;

const FIRST: [&str; 8] = ["Anna", "Björn", "Chloé", "Dmitri", "Eva", "Fatima", "Gül", "Hugo"];
const LAST: [&str; 5] = ["Müller", "O'Neil", "Nowak", "Garcia", "Li"];
const CITIES: [&str; 4] = ["Köln", "Paris", "Łódź", "Porto"];

/// `n` recipients as NDJSON.
///
/// The mail catcher refuses addresses that begin with `refuse` or `full`. It defers those that
/// begin with `defer` once.
pub fn ndjson(n: u32) -> String {
    let pick = |from: &[&'static str], i: u32| {
        from.get(i as usize % from.len()).copied().unwrap_or_default()
    };
    let line = |i: u32| {
        let email = match i % 50 {
            11 => format!("refuse{i}@example.com"),
            17 | 37 => format!("defer{i}@example.net"),
            23 => format!("USER{}@Example.ORG", i - 1),
            29 if i % 100 == 29 => String::new(),
            29 => format!("no address {i}"),
            43 => format!("full{i}@example.com"),
            _ => format!("user{i}@example.org"),
        };
        let fields = json!({
            "email": email,
            "first_name": pick(&FIRST, i),
            "last_name": pick(&LAST, i / 3),
            "city": pick(&CITIES, i / 7),
            "points": i * 37 % 900,
        });
        format!("{fields}\n")
    };
    (0..n).map(line).collect()
}
