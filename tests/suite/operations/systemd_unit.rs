//! The systemd unit: valid for systemd, confined, and consistent with the settings.

use std::{fs, path::Path, process::Command};

use crate::harness::{LIMIT, repository, run_to_end, text};

const UNIT: &str = "systemd/versand.service";

fn analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    let output = run_to_end(command.args(arguments).arg(unit), LIMIT);
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

/// The value of a key of the unit; the last one, as systemd reads it.
fn value<'a>(unit: &'a str, key: &str) -> Option<&'a str> {
    let pairs = unit.lines().filter_map(|line| line.split_once('='));
    pairs.filter(|(name, _)| *name == key).map(|(_, value)| value).next_back()
}

fn verify(unit: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("versand.service");
    // The program of this build stands in for the installed one.
    let here = unit.replace("/usr/bin/versand", env!("CARGO_BIN_EXE_versand"));
    fs::write(&path, here).unwrap();
    analyze(&["verify", "--man=no"], &path)
}

#[test]
fn systemd_understands_every_line() {
    let unit = text(repository(UNIT));
    // The exit status is good even for an unknown key: the output must be empty.
    assert_eq!(verify(&unit), (true, String::new()));
    let (_, printed) = verify(&unit.replace("KillMode=", "KilMode="));
    assert!(printed.contains("KilMode"), "{printed}");
}

#[test]
fn the_daemon_is_confined() {
    let arguments = ["security", "--offline=true", "--threshold=15", "--no-pager"];
    let (confined, printed) = analyze(&arguments, &repository(UNIT));
    assert!(confined, "{printed}");
}

#[test]
fn stopping_leaves_time_to_drain() {
    let unit = text(repository(UNIT));
    let settings: toml::Table = text(repository("config/default.toml")).parse().unwrap();
    let drain_ms = settings["server"]["drain_ms"].as_integer().unwrap();
    let stop_s: i64 = value(&unit, "TimeoutStopSec").unwrap().parse().unwrap();
    assert!(stop_s * 1000 >= drain_ms + 20_000, "{stop_s} s, {drain_ms} ms");
}

#[test]
fn the_benchmark_runs_the_daemon_under_its_policy() {
    let policy = text(repository(UNIT));
    let policy = value(&policy, "CPUSchedulingPolicy").unwrap();
    let prefix = format!("BATCH = [\"chrt\", \"--{policy}\", \"0\"]");
    assert!(text(repository("benches/parts.py")).contains(&prefix), "{prefix}");
}

/// The embedded Redis reads its whole log first. If systemd killed it on the way, it would begin
/// again for ever.
#[test]
fn starting_has_no_limit() {
    assert_eq!(value(&text(repository(UNIT)), "TimeoutStartSec"), Some("infinity"));
}

#[test]
fn a_reload_a_hang_and_a_crash_are_provided_for() {
    let unit = text(repository(UNIT));
    assert_eq!(value(&unit, "ExecReload"), Some("/bin/kill -HUP $MAINPID"));
    assert_eq!(value(&unit, "Restart"), Some("on-failure"));
    assert_eq!(value(&unit, "LimitCORE"), Some("0"));
    let watchdog_s: u64 = value(&unit, "WatchdogSec").unwrap().parse().unwrap();
    assert!((10..=60).contains(&watchdog_s), "{watchdog_s} s");
    for limit in ["MemoryHigh", "MemoryMax", "TasksMax"] {
        assert!(value(&unit, limit).is_some(), "{limit}");
    }
}

/// A real systemd restarts a failing ExecStartPre for ever, whatever the exit code is.
#[test]
fn wrong_settings_end_the_daemon_for_good() {
    let unit = text(repository(UNIT));
    assert_eq!(value(&unit, "RestartPreventExitStatus"), Some("64"));
    assert_eq!(value(&unit, "ExecStartPre"), None);
}
