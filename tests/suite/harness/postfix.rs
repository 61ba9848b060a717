//! A real private Postfix: it relays, refuses, defers, and delivers into Maildirs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{LIMIT, eventually_blocking, ports::try_ports, repository, run_to_end, smtp_dialogue};

const START: Duration = LIMIT;

pub struct Postfix {
    folder: TempDir,
    port: u16,
    tls_port: u16,
}

impl Postfix {
    /// Starts Postfix on free ports of 127.0.0.1. tests/suite/harness/postfix.sh decides how each
    /// address is treated.
    pub fn start() -> Self {
        try_ports(Self::start_on)
    }

    /// Returns `None` if one of the ports is in use.
    pub(super) fn start_on(ports: [u16; 3]) -> Option<Self> {
        // The folder is not under target/: the users of Postfix cannot enter most home directories.
        let folder = tempfile::Builder::new().prefix("versand-postfix-").tempdir().unwrap();
        let postfix = Self { folder, port: ports[0], tls_port: ports[1] };
        postfix.write_certificate();
        let uid = rustix::process::geteuid().as_raw();
        let mut start = postfix.script("start");
        start.args(ports.map(|port| port.to_string()));
        start.args([std::process::id().to_string(), uid.to_string()]);
        let started = run_to_end(&mut start, START);
        if !started.status.success() {
            let (output, log) =
                (String::from_utf8_lossy(&started.stderr).into_owned(), postfix.log());
            assert!(
                log.contains("Address already in use"),
                "Postfix does not start: {output}\n{log}"
            );
            return None;
        }
        eventually_blocking("Postfix greets", START, || {
            smtp_dialogue(("127.0.0.1", postfix.port), &["QUIT"]).ok()
        });
        Some(postfix)
    }

    /// The port without TLS, with STARTTLS on offer.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port with implicit TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// The PEM file of the certificate to trust. Its host name is `localhost`.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The log of Postfix so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("maillog")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until the mailbox (`alice`, `bob` or `bounces`) holds `count` messages. Returns all of
    /// them, as delivered.
    pub fn mailbox(&self, name: &str, count: usize, limit: Duration) -> Vec<Vec<u8>> {
        let folder = self.folder.path().join("mail").join(name).join("new");
        let what = format!("{count} messages for {name}");
        eventually_blocking(&what, limit, || {
            let found = messages(&folder);
            (found.len() >= count).then_some(found)
        })
    }

    fn write_certificate(&self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(self.ca_file(), &certificate).unwrap();
        let both = format!("{key}{certificate}");
        fs::write(self.folder.path().join("tls.pem"), both).unwrap();
    }

    fn script(&self, action: &str) -> Command {
        let mut command = if rustix::process::geteuid().is_root() {
            Command::new("sh")
        } else {
            // Only root may start Postfix. `make test` has asked for the password, if there is one.
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "sh"]);
            sudo
        };
        command
            .arg(repository("tests/suite/harness/postfix.sh"))
            .arg(action)
            .arg(self.folder.path());
        command
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("Postfix logged:\n{}", self.log());
        }
        // This does not call `run_to_end`: a second panic would abort the whole test run.
        let _ = self.script("stop").status();
    }
}

fn messages(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}
