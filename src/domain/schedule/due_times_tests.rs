//! Tests of due times: skipped and repeated local times, odd offsets, and every wrong field.

use serde_json::json;

use super::{super::local_time::clock_change_warning, *};

fn schedule(json: Value) -> Schedule {
    serde_json::from_value(json).unwrap()
}

fn recipient(fields: Value) -> Recipient {
    Recipient {
        line: 1,
        email: "ann@example.com".into(),
        fields: fields.as_object().unwrap().clone(),
    }
}

fn instant_of(at: &str) -> u32 {
    u32::try_from(at.parse::<Timestamp>().unwrap().as_second()).unwrap()
}

fn at(local: &str, zone: &str) -> u32 {
    let mut times =
        schedule(json!({ "type": "at", "at": local, "zone": zone })).due_times().unwrap();
    times.due(&recipient(json!({}))).unwrap()
}

#[test]
fn a_local_time_is_read_in_its_zone() {
    for (local, zone, utc) in [
        ("2026-12-01T09:00:00", "Europe/Berlin", "2026-12-01T08:00:00Z"),
        ("2026-12-01 09:00", "UTC", "2026-12-01T09:00:00Z"),
        ("2026-12-01T09:00:00", "Asia/Kathmandu", "2026-12-01T03:15:00Z"),
        ("2026-12-01T09:00:00", "Asia/Kolkata", "2026-12-01T03:30:00Z"),
        ("2026-12-01T09:00:00", "Pacific/Chatham", "2026-11-30T19:15:00Z"),
        ("2026-07-01T09:00:00", "Pacific/Chatham", "2026-06-30T20:15:00Z"),
        ("2026-12-01T09:00:00", "Australia/Eucla", "2026-12-01T00:15:00Z"),
        ("2026-12-01T09:00:00", "Pacific/Kiritimati", "2026-11-30T19:00:00Z"),
        ("2026-12-01T09:00:00", "America/St_Johns", "2026-12-01T12:30:00Z"),
    ] {
        assert_eq!(at(local, zone), instant_of(utc), "{local} {zone}");
    }
}

#[test]
fn a_skipped_time_moves_forward_by_the_gap_and_a_repeated_one_is_the_first() {
    for (local, zone, utc) in [
        // northern: skipped in March, repeated in October
        ("2027-03-28T02:30:00", "Europe/Berlin", "2027-03-28T01:30:00Z"),
        ("2026-10-25T02:30:00", "Europe/Berlin", "2026-10-25T00:30:00Z"),
        // southern: skipped in October or September, repeated in April
        ("2026-10-04T02:30:00", "Australia/Sydney", "2026-10-03T16:30:00Z"),
        ("2027-04-04T02:30:00", "Australia/Sydney", "2027-04-03T15:30:00Z"),
        ("2026-09-06T00:30:00", "America/Santiago", "2026-09-06T04:30:00Z"),
        // by half an hour
        ("2026-10-04T02:15:00", "Australia/Lord_Howe", "2026-10-03T15:45:00Z"),
        ("2027-04-04T01:45:00", "Australia/Lord_Howe", "2027-04-03T14:45:00Z"),
        // a whole day is skipped
        ("2011-12-30T09:00:00", "Pacific/Apia", "2011-12-30T19:00:00Z"),
    ] {
        assert_eq!(at(local, zone), instant_of(utc), "{local} {zone}");
        assert!(clock_change_warning(local, zone).is_some(), "{local} {zone}");
    }
    assert_eq!(clock_change_warning("2027-03-28T03:30:00", "Europe/Berlin"), None);
}

#[test]
fn an_unclear_schedule_is_refused() {
    let steps = |shares: &[f64], ats: &[&str]| {
        let steps: Vec<Value> =
            shares.iter().zip(ats).map(|(share, at)| json!({ "share": share, "at": at })).collect();
        json!({ "type": "ramp_up", "zone": "UTC", "steps": steps })
    };
    let at = |at: &str, zone: &str| json!({ "type": "at", "at": at, "zone": zone });
    for (bad, field) in [
        (at("2026-12-01T09:00:00", ""), "schedule.zone"),
        (at("2026-12-01T09:00:00", "Europe/Atlantis"), "schedule.zone"),
        (at("2026-12-01T09:00:00", "+01:00"), "schedule.zone"),
        (at("2026-12-01T09:00:00+01:00", "UTC"), "schedule.at"),
        (at("2026-12-01T09:00:00-01:00", "UTC"), "schedule.at"),
        (at("2026-12-01T09:00:00Z", "UTC"), "schedule.at"),
        (at("2026-12-01T09:00:00[UTC]", "UTC"), "schedule.at"),
        (at("2026-02-30T09:00:00", "UTC"), "schedule.at"),
        (at("2026-12-01", "UTC"), "schedule.at"),
        (at("2200-12-01T09:00:00", "UTC"), "schedule.at"),
        (
            json!({ "type": "local_time", "at": "2026-12-01T09:00:00", "zone_field": " " }),
            "schedule.zone_field",
        ),
        (
            json!({
                "type": "local_time", "at": "2026-12-01T09:00:00",
                "zone_field": "zone", "default_zone": "Mars"
            }),
            "schedule.default_zone",
        ),
        (json!({ "type": "per_recipient", "field": "" }), "schedule.field"),
        (steps(&[], &[]), "schedule.steps"),
        (steps(&[50.0], &["2026-12-01T09:00:00"]), "schedule.steps"),
        (
            steps(&[0.0, 100.0], &["2026-12-01T09:00:00", "2026-12-02T09:00:00"]),
            "schedule.steps[0].share",
        ),
        (
            steps(&[50.0, 50.0], &["2026-12-01T09:00:00", "2026-12-01T09:00:00"]),
            "schedule.steps[1].at",
        ),
        (steps(&[50.0, 50.0], &["2026-12-01T09:00:00", "tomorrow"]), "schedule.steps[1].at"),
    ] {
        assert_eq!(
            schedule(bad.clone()).due_times().map_err(|e| e.field).unwrap_err(),
            field,
            "{bad}"
        );
    }
    assert!(
        serde_json::from_value::<Schedule>(json!({ "type": "at", "at": "2026-12-01T09:00:00" }))
            .is_err()
    );
}

#[test]
fn each_recipient_has_its_own_zone_or_the_default_one() {
    let times = |default: Value| {
        let local = json!({
            "type": "local_time", "at": "2026-12-01T09:00:00",
            "zone_field": "zone", "default_zone": default
        });
        schedule(local).due_times().unwrap()
    };
    let mut with_default = times(json!("Europe/Berlin"));
    for (fields, utc) in [
        (json!({ "zone": "Asia/Tokyo" }), "2026-12-01T00:00:00Z"),
        (json!({ "zone": "America/New_York" }), "2026-12-01T14:00:00Z"),
        (json!({ "zone": "" }), "2026-12-01T08:00:00Z"),
        (json!({ "zone": null }), "2026-12-01T08:00:00Z"),
        (json!({}), "2026-12-01T08:00:00Z"),
    ] {
        assert_eq!(with_default.due(&recipient(fields)), Ok(instant_of(utc)));
    }
    for fields in [json!({ "zone": "Nowhere" }), json!({ "zone": 1 })] {
        assert_eq!(
            with_default.due(&recipient(fields)).map_err(|e| e.field),
            Err("zone".to_owned())
        );
    }
    assert!(times(Value::Null).due(&recipient(json!({}))).is_err());
}

#[test]
fn a_date_per_recipient_needs_its_offset() {
    let mut times =
        schedule(json!({ "type": "per_recipient", "field": "when" })).due_times().unwrap();
    let mut due = |when: Value| times.due(&recipient(json!({ "when": when })));
    assert_eq!(due(json!("2026-12-01T09:00:00+05:45")), Ok(instant_of("2026-12-01T03:15:00Z")));
    assert_eq!(
        due(json!("2026-12-01T09:00:00.2Z")),
        Ok(instant_of("2026-12-01T09:00:01Z")),
        "never early"
    );
    for bad in [
        json!("2026-12-01T09:00:00"),
        json!("2026-12-01"),
        json!("soon"),
        json!(""),
        json!(null),
        json!(1_796_000_000),
    ] {
        assert!(due(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn the_steps_of_a_ramp_up_get_their_shares_throughout_the_audience() {
    let steps = json!([
        { "share": 10, "at": "2026-12-01T09:00:00" }, { "share": 15, "at": "2026-12-02T09:00:00" },
        { "share": 75, "at": "2026-12-03T09:00:00" }
    ]);
    let mut times = schedule(json!({ "type": "ramp_up", "zone": "Europe/Berlin", "steps": steps }))
        .due_times()
        .unwrap();
    let dues: Vec<u32> = (0..1000).map(|_| times.due(&recipient(json!({}))).unwrap()).collect();
    let first = instant_of("2026-12-01T08:00:00Z");
    for (until, most_off) in [(20, 1.0), (100, 1.0), (1000, 0.5)] {
        for (step, share) in [(0, 0.1), (1, 0.15), (2, 0.75)] {
            let assigned =
                dues[..until].iter().filter(|due| **due == first + step * 86_400).count() as f64;
            assert!(
                (assigned - share * until as f64).abs() <= most_off,
                "{assigned} of {until} in step {step}"
            );
        }
    }
}
