//! Tests of recurrence: due times across clock changes, and rules that cannot be used.

use super::*;

fn rule(cron: &str, zone: &str) -> RecurrenceRule {
    let until = None;
    RecurrenceRule {
        cron: cron.into(),
        zone: zone.into(),
        lead_minutes: 60,
        audience: AudienceSource::Stored,
        until,
        request_confirmation: true,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The first `n` instants after `from`.
fn instants(cron: &str, zone: &str, from: &str, n: usize) -> Vec<String> {
    let instants = rule(cron, zone).instants().unwrap();
    std::iter::successors(instants.after(at(from)), |t| instants.after(*t))
        .take(n)
        .map(|t| t.to_string())
        .collect()
}

#[test]
fn nine_o_clock_stays_nine_o_clock_across_both_clock_changes() {
    let spring = instants("0 9 * * *", "Europe/Berlin", "2027-03-27T08:00:00Z", 2);
    assert_eq!(spring, ["2027-03-28T07:00:00Z", "2027-03-29T07:00:00Z"]);
    let autumn = instants("0 9 * * SUN", "Europe/Berlin", "2027-10-24T07:00:00Z", 2);
    assert_eq!(autumn, ["2027-10-31T08:00:00Z", "2027-11-07T08:00:00Z"]);
}

#[test]
fn a_time_that_is_skipped_moves_forward_and_one_that_is_repeated_is_its_first() {
    let spring = instants("30 2 * * *", "Europe/Berlin", "2027-03-27T00:00:00Z", 3);
    assert_eq!(
        spring,
        ["2027-03-27T01:30:00Z", "2027-03-28T01:30:00Z", "2027-03-29T00:30:00Z"],
        "03:30 on the 28th"
    );
    let autumn = instants("30 2 * * *", "Europe/Berlin", "2027-10-30T00:00:00Z", 3);
    assert_eq!(autumn, ["2027-10-30T00:30:00Z", "2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"]);
    // 01:10 UTC is in the second hour from 02:00 to 03:00. The first 02:30 has passed.
    assert_eq!(
        instants("30 2 * * *", "Europe/Berlin", "2027-10-31T01:10:00Z", 1),
        ["2027-11-01T01:30:00Z"]
    );
}

#[test]
fn two_local_times_of_one_instant_are_one_occurrence_and_none_is_left_out() {
    let hourly = instants("0 * * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", 3);
    assert_eq!(hourly, ["2027-03-28T01:00:00Z", "2027-03-28T02:00:00Z", "2027-03-28T03:00:00Z"]);
    // 02:00 to 02:30 is skipped: 02:20 moves to 02:50, which comes after 02:40
    let half = instants("20,40 * * * *", "Australia/Lord_Howe", "2027-10-02T15:20:00Z", 4);
    assert_eq!(
        half,
        [
            "2027-10-02T15:40:00Z",
            "2027-10-02T15:50:00Z",
            "2027-10-02T16:20:00Z",
            "2027-10-02T16:40:00Z"
        ]
    );
    // a whole day is skipped: its noon is the noon of the next day
    let samoa = instants("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3);
    assert_eq!(samoa, ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z", "2011-12-31T22:00:00Z"]);
}

#[test]
fn every_local_time_of_a_year_has_one_instant() {
    for zone in [
        "Europe/Berlin",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Pacific/Chatham",
        "America/New_York",
    ] {
        let tz = TimeZone::get(zone).unwrap();
        for cron in ["30 2 * * *", "15,45 1-3 * * *", "*/40 * * * *"] {
            let instants = rule(cron, zone).instants().unwrap();
            let (from, to) = (at("2027-01-01T12:00:00Z"), at("2028-01-01T12:00:00Z"));
            let found: Vec<i64> =
                std::iter::successors(instants.after(from), |t| instants.after(*t))
                    .take_while(|t| *t <= to)
                    .map(|t| t.as_second())
                    .collect();
            // each local time of the year, converted to an instant as in a schedule
            let parsed = CronParser::new().parse(cron).unwrap();
            let first = DateTime::<Utc>::from_timestamp(from.as_second() - 86_400, 0).unwrap();
            let mut expected: Vec<i64> = parsed
                .iter_after(first)
                .take_while(|local| local.timestamp() < to.as_second() + 2 * 86_400)
                .map(|local| {
                    TimeZone::UTC.to_datetime(Timestamp::from_second(local.timestamp()).unwrap())
                })
                .map(|local| i64::from(local_time::instant(local, &tz).unwrap()))
                .filter(|due| *due > from.as_second() && *due <= to.as_second())
                .collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(found, expected, "{cron} {zone}");
        }
    }
}

#[test]
fn odd_offsets_and_lists_are_understood_and_until_ends_the_rule() {
    assert_eq!(
        instants("0 9 * * MON-FRI", "Asia/Kathmandu", "2026-12-04T04:00:00Z", 1),
        ["2026-12-07T03:15:00Z"]
    );
    assert_eq!(
        instants("30 8 1 * *", "Pacific/Chatham", "2026-12-01T00:00:00Z", 1),
        ["2026-12-31T18:45:00Z"]
    );
    let until = Some(at("2026-12-02T12:00:00Z"));
    let ending = RecurrenceRule { until, ..rule("0 12 * * *", "UTC") }.instants().unwrap();
    assert_eq!(
        ending.after(at("2026-12-01T12:00:00Z")),
        until,
        "the last occurrence may be at `until` itself"
    );
    assert_eq!(ending.after(at("2026-12-02T12:00:00Z")), None);
}

#[test]
fn a_wrong_field_is_named() {
    let now = at("2026-12-01T00:00:00Z");
    let refused = |rule: RecurrenceRule| rule.first(now).map_err(|e| e.field).unwrap_err();
    let good = || rule("0 9 * * MON", "Europe/Berlin");
    assert_eq!(good().first(now), Ok(at("2026-12-07T08:00:00Z")));
    for cron in
        ["", "0 9 * *", "0 0 9 * * MON", "@daily", "61 9 * * *", "0 9 * * XYZ", "0 0 30 2 *"]
    {
        assert_eq!(refused(rule(cron, "UTC")), "cron", "{cron}");
    }
    assert_eq!(refused(rule("0 9 * * *", "Berlin")), "zone");
    assert_eq!(refused(RecurrenceRule { lead_minutes: 0, ..good() }), "lead_minutes");
    assert_eq!(refused(RecurrenceRule { lead_minutes: 10_081, ..good() }), "lead_minutes");
    assert_eq!(refused(RecurrenceRule { until: Some(now), ..good() }), "until");
    assert_eq!(
        refused(RecurrenceRule { until: Some(at("2026-12-07T07:59:59Z")), ..good() }),
        "until"
    );
}

#[test]
fn an_occurrence_is_scheduled_for_its_instant_and_says_so_in_its_name() {
    let template: Definition = serde_json::from_value(serde_json::json!({
        "name": "W".repeat(200),
        "sender": { "email": "news@shop.example" },
        "content": { "subject": "Hello", "text": "Hi" }
    }))
    .unwrap();
    for due in ["2027-03-28T01:30:00Z", "2027-10-31T00:30:00Z"].map(at) {
        let definition = rule("30 2 * * *", "Europe/Berlin").definition(&template, due).unwrap();
        assert_eq!(definition.check(), Ok(()));
        assert_eq!(
            definition.schedule.fixed(),
            [("schedule.at".to_owned(), due.as_second() as u32)]
        );
        assert!(definition.name.ends_with(if due < at("2027-06-01T00:00:00Z") {
            "W 2027-03-28 03:30"
        } else {
            "W 2027-10-31 02:30"
        }));
    }
}
