//! Local times: a date and time on the clock of a zone, and the instant it means.

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

/// Parses a local date and time. jiff would ignore an offset after it, so an offset is refused.
pub(super) fn parse(text: &str) -> Result<DateTime, String> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b"-T: .".contains(&b))
        && text.matches('-').count() == 2;
    match text.parse::<DateTime>() {
        Ok(time) if is_plain && text.contains(':') => Ok(time),
        _ => Err("must be a date and time without an offset, such as 2026-12-01T09:00:00: \
                  its zone is a field of its own"
            .into()),
    }
}

/// The zone with this name in the IANA database.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| "is not the name of a time zone, such as Europe/Berlin".to_owned())
}

/// The instant of a local time, in Unix seconds. A skipped time moves forward by the gap, and a
/// repeated one means the first. RFC 5545 has the same rule; jiff calls it "compatible".
pub(super) fn instant(local: DateTime, zone: &TimeZone) -> Result<u32, String> {
    let at = zone.to_ambiguous_timestamp(local).compatible().map_err(|e| e.to_string())?;
    whole_seconds(at)
}

/// Unix seconds, rounded up so that nothing is sent early.
pub(super) fn whole_seconds(at: Timestamp) -> Result<u32, String> {
    let whole = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
    u32::try_from(whole)
        .ok()
        .filter(|due| *due > 0)
        .ok_or_else(|| "must lie between 1970 and 2106".to_owned())
}

/// Whether a clock change skips this local time.
pub(super) fn is_skipped(local: DateTime, zone: &TimeZone) -> bool {
    matches!(zone.to_ambiguous_timestamp(local).offset(), AmbiguousOffset::Gap { .. })
}

/// A warning if a clock change skips or repeats this local time. `None` also if the time or the
/// zone cannot be read.
pub fn clock_change_warning(local: &str, zone_name: &str) -> Option<&'static str> {
    let ambiguous = zone(zone_name).ok()?.to_ambiguous_timestamp(parse(local).ok()?);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => None,
        AmbiguousOffset::Gap { .. } => {
            Some("a clock change skips this time: it moves forward by the gap")
        }
        AmbiguousOffset::Fold { .. } => {
            Some("a clock change repeats this time: the first one is meant")
        }
    }
}
