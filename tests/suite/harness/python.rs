//! Python with the packages that tests/python/requirements.txt pins.

use std::{ffi::OsStr, path::PathBuf, process::Command, time::Duration};

use super::{repository, run};

/// The interpreter that has the packages.
pub fn interpreter() -> PathBuf {
    let python = repository("target/python/bin/python");
    assert!(python.exists(), "{} is missing: `make test` makes it", python.display());
    python
}

/// Runs a script of the repository with arguments. Returns the standard output of the script.
/// Panics with the errors of the script if it fails.
pub fn python(script: &str, arguments: &[impl AsRef<OsStr>], limit: Duration) -> String {
    let mut command = Command::new(interpreter());
    command.arg(repository(script)).args(arguments);
    String::from_utf8(run(&mut command, limit).stdout).unwrap()
}
