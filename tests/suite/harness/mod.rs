//! Servers and clients for the tests. Each server ends with its test.
//!
//! A test fails if a program is missing.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

pub mod app;
pub mod client;
pub mod daemon;
pub mod direct_calls;
mod own_tests;
pub mod people;
pub mod ports;
pub mod postfix;
pub mod python;
pub mod queue;
pub mod redis;
pub mod redis_user;
pub mod relay;
pub mod smtp;
pub mod tracking;

/// The limit of a wait. Tests assert that something comes, not when: a busy machine breaks no test.
pub const LIMIT: Duration = Duration::from_secs(120);
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));

/// The pause until the next probe. It grows with the wait, because probing takes time from the
/// tested program.
fn pause(since: Instant) -> Duration {
    (since.elapsed() / 16).clamp(POLL.0, POLL.1)
}

/// The key of the installation that all daemons of the tests share.
pub fn installation_key() -> versand::domain::seal::InstallationKey {
    versand::domain::seal::InstallationKey::new(INSTALLATION_SECRET)
}

const INSTALLATION_SECRET: [u8; 32] = [7; 32];

/// Puts the key of [`installation_key`] into a state directory, as an operator does for a second
/// daemon.
pub fn share_installation_key(state_dir: &Path) {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).unwrap();
    let path = state_dir.join("installation.secret");
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(&INSTALLATION_SECRET).unwrap();
}

/// A path of the repository, such as `repository("config/default.toml")`.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the repository.
pub fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Probes again and again, for at most `limit`, until the answer is `Some`. The panic names `what`:
/// the thing that the test waited for.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let (began, end) = (Instant::now(), Instant::now() + limit);
    loop {
        // The probe may hang as well: it gets the rest of the limit.
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, probe()).await {
            Ok(Some(answer)) => return answer,
            Ok(None) if Instant::now() < end => tokio::time::sleep(pause(began)).await,
            _ => panic!("{what}: not within {limit:?}"),
        }
    }
}

/// Like [`eventually`], for a test without a runtime. The probe must not hang.
pub fn eventually_blocking<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let (began, end) = (Instant::now(), Instant::now() + limit);
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        thread::sleep(pause(began));
    }
}

/// Waits until the answer of `look` has not changed for a while, and returns that answer.
pub async fn at_rest<T: PartialEq>(
    what: &str,
    a_while: Duration,
    mut look: impl FnMut() -> T,
) -> T {
    let (mut found, mut since) = (look(), Instant::now());
    eventually(what, LIMIT, async || {
        let now = look();
        if now != found {
            (found, since) = (now, Instant::now());
        }
        (since.elapsed() >= a_while).then_some(())
    })
    .await;
    found
}

/// Runs a program to its end. Panics if it is missing, fails, or takes longer than `limit` (then it
/// is killed).
pub fn run(command: &mut Command, limit: Duration) -> Output {
    let output = run_to_end(command, limit);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Like [`run`], but leaves the exit status to the caller.
pub fn run_to_end(command: &mut Command, limit: Duration) -> Output {
    // Output goes to files, not pipes: a program that leaves a daemon behind would keep a pipe open
    // for ever.
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command
        .stdin(std::process::Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{}", missing(command, &e)));
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?}: not done within {limit:?}\n{}", rewound(&mut err));
        }
        thread::sleep(POLL.0);
    };
    Output {
        status,
        stdout: rewound(&mut out).into_bytes(),
        stderr: rewound(&mut err).into_bytes(),
    }
}

/// The message for a program that cannot be started.
pub fn missing(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().display();
    match error.kind() {
        ErrorKind::NotFound => format!("{program} is not installed: `make test` installs it"),
        _ => format!("{program}: {error}"),
    }
}

fn rewound(file: &mut fs::File) -> String {
    use std::io::Seek;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Speaks plain SMTP: reads the greeting, then writes each line and reads the reply to it. Returns
/// the last line of the greeting and of each reply.
pub fn smtp_dialogue(address: (&str, u16), lines: &[&str]) -> std::io::Result<Vec<String>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut replies = vec![smtp_reply(&mut stream)?];
    for line in lines {
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        replies.push(smtp_reply(&mut stream)?);
    }
    Ok(replies)
}

/// The last line of one reply (RFC 5321, 4.2.1), without its line end.
fn smtp_reply(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' if line.get(3) == Some(&b'-') => line.clear(),
            b'\n' => return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned()),
            other => line.push(other),
        }
    }
}
