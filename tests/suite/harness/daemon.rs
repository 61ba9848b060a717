//! The real binary as a process of its own.
//!
//! A test can kill it, freeze it, end it and start it again on the same state directory.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{
    LIMIT, client::Client, eventually, eventually_blocking, redis::password_file, run,
    share_installation_key,
};

const START: Duration = LIMIT;
/// The bearer token of every daemon here. It has all roles except `auditor`.
pub const TOKEN: &str = "the test's own token";

pub struct Daemon {
    folder: TempDir,
    settings: String,
    child: Option<Child>,
    /// A client of the running daemon, whose address changes with each restart.
    pub client: Client,
    /// The length of the log when the running daemon was started.
    began: usize,
    /// True if a test can set its clock.
    own_clock: bool,
    /// Further variables of its environment.
    environment: Vec<(&'static str, OsString)>,
}

/// Debian puts the library into a folder with the name of the architecture.
fn libfaketime() -> PathBuf {
    let found = fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("faketime/libfaketimeMT.so.1"));
    found
        .into_iter()
        .find(|path| path.exists())
        .expect("libfaketime is missing: scripts/setup.sh test installs faketime")
}

/// Copies a directory with all that a backup program keeps: owners, modes, times.
pub fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to), LIMIT);
}

impl Daemon {
    /// Starts the binary with these settings (TOML). The harness chooses the state directory, the
    /// address and the token. Leases are short unless the settings say otherwise.
    pub async fn start(settings: &str) -> Self {
        let mut daemon = Self::new(settings, false);
        daemon.launch().await;
        daemon
    }

    /// Starts the binary with these variables in its environment.
    pub async fn start_with(settings: &str, environment: Vec<(&'static str, OsString)>) -> Self {
        let mut daemon = Self::new(settings, false);
        daemon.environment = environment;
        daemon.launch().await;
        daemon
    }

    /// Makes a daemon that does not run yet, with the settings of another one.
    pub fn unstarted(original: &Self) -> Self {
        let daemon = Self::new(&original.settings, false);
        fs::remove_dir_all(daemon.state_dir()).unwrap();
        daemon
    }

    /// Restores a backup with the command, and starts the binary on it.
    pub async fn start_restored(original: &Self, backup: &Path) -> Self {
        let mut daemon = Self::unstarted(original);
        let mut restore = Command::new(env!("CARGO_BIN_EXE_versand"));
        restore.arg("restore").arg(backup).arg("--state-dir").arg(daemon.state_dir());
        run(&mut restore, LIMIT);
        daemon.launch().await;
        daemon
    }

    /// The path of the settings file that the binary reads.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Starts the binary on a copy of the state directory of another daemon, with its settings.
    pub async fn start_on_copy(original: &Self) -> Self {
        let mut daemon = Self::new(&original.settings, false);
        fs::remove_dir_all(daemon.state_dir()).unwrap();
        copy(&original.state_dir(), &daemon.state_dir());
        daemon.launch().await;
        daemon
    }

    fn new(settings: &str, own_clock: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("versand-").tempdir().unwrap();
        let client = Client::new(String::new(), TOKEN.to_owned());
        share_installation_key(&folder.path().join("state"));
        Self {
            folder,
            settings: settings.to_owned(),
            child: None,
            client,
            began: 0,
            own_clock,
            environment: Vec::new(),
        }
    }

    /// Starts a daemon with a clock of its own, which [`Self::set_clock`] sets. The settings must
    /// name a Redis.
    pub async fn start_with_clock(settings: &str) -> Self {
        let mut daemon = Self::new(settings, true);
        daemon.set_clock(0);
        daemon.launch().await;
        daemon
    }

    /// Sets the wall clock of the daemon `ahead_s` seconds ahead. The monotonic clocks do not
    /// change.
    pub fn set_clock(&self, ahead_s: i64) {
        fs::write(self.folder.path().join("clock"), format!("{ahead_s:+}\n")).unwrap();
    }

    /// Starts the daemon again. A daemon that still runs is killed first.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch().await;
    }

    /// Takes the key of the installation away, as if only versions without such a key had run.
    pub fn forget_installation(&self) {
        let state = self.folder.path().join("state");
        for file in ["installation.secret", "message.secret", "token.secret"] {
            let _ = fs::remove_file(state.join(file));
        }
    }

    /// The content of a file in the state directory.
    pub fn state_file(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join("state").join(name)).unwrap()
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.ended(LIMIT).await
    }

    /// Sends SIGTERM and does not wait.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let status =
            eventually("the daemon's end", limit, async || child.try_wait().unwrap()).await;
        assert!(self.embedded_pid().is_none(), "an embedded Redis still runs");
        status
    }

    /// Its resident memory now, in KiB.
    pub fn resident_kib(&self) -> usize {
        let pid = self.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Writes other settings into the file that the daemon was started with, and sends SIGHUP.
    /// Returns what the daemon logs from then on until it has read them.
    pub async fn reload(&mut self, settings: &str) -> String {
        self.settings = settings.to_owned();
        self.reload_text(&self.with_own_settings()).await
    }

    /// Like [`Self::reload`], with exactly this text in the file.
    pub async fn reload_text(&self, text: &str) -> String {
        fs::write(self.folder.path().join("config.toml"), text).unwrap();
        let before = self.log().len();
        self.signal(Signal::HUP);
        eventually("the settings are read again", LIMIT, async || {
            let log = self.log()[before..].to_owned();
            let ends = ["were read again", "nothing has changed"];
            ends.iter().any(|end| log.contains(end)).then_some(log)
        })
        .await
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Sends SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The log of all daemons that ran on this state directory.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The name of the running daemon, as leases give it.
    pub fn owner(&self) -> u64 {
        let log = self.log();
        let (_, owner) = log[self.began..].split_once("owner=\"").expect("the daemon is ready");
        u64::from_str_radix(&owner[..16], 16).unwrap()
    }

    /// The value of a metric with its labels, as `/metrics` writes it. `None` if the metric is
    /// missing now, or if the daemon does not answer.
    pub async fn series(&self, series: &str) -> Option<f64> {
        let text =
            reqwest::get(format!("{}/metrics", self.client.url)).await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// The value of a metric, with its labels if it has some. Waits for a metric that is set later.
    pub async fn metric(&self, name: &str) -> f64 {
        eventually(name, START, async || self.series(name).await).await
    }

    /// Waits until a task of the scheduler, such as `reconcile`, has run `times` times from now on.
    pub async fn passes(&self, task: &str, times: usize) {
        let series = format!("versand_scheduler_last_success_timestamp_seconds{{task=\"{task}\"}}");
        let mut last = self.series(&series).await;
        // The run that ends next may have begun before this call.
        for _ in 0..=times {
            last = eventually(task, LIMIT, async || {
                Some(self.series(&series).await).filter(|now| now.is_some() && *now != last)
            })
            .await;
        }
    }

    /// The redis-server that listens in the state directory, if there is one.
    pub fn embedded_pid(&self) -> Option<Pid> {
        let answer = self.ask_embedded("INFO server")?;
        let line = answer.lines().find_map(|line| line.strip_prefix("process_id:"))?;
        Pid::from_raw(line.trim().parse().ok()?)
    }

    /// Sends SIGKILL to the embedded Redis.
    pub fn kill_embedded(&self) {
        kill_process(self.embedded_pid().expect("an embedded Redis"), Signal::KILL).unwrap();
    }

    fn ask_embedded(&self, command: &str) -> Option<String> {
        let mut stream =
            UnixStream::connect(self.folder.path().join("state/redis/redis.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("the daemon is running")), signal)
            .unwrap();
    }

    async fn launch(&mut self) {
        self.began = self.log().len();
        let config = self.folder.path().join("config.toml");
        fs::write(&config, self.with_own_settings()).unwrap();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
        command.arg("serve").arg("--config").arg(config);
        if self.own_clock {
            command
                .env("LD_PRELOAD", libfaketime())
                .env("FAKETIME_TIMESTAMP_FILE", self.folder.path().join("clock"));
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        self.client.url = eventually_blocking("the daemon listens", START, || self.listening());
        let ready = format!("{}/readyz", self.client.url);
        eventually("the daemon is ready", START, async || {
            reqwest::get(&ready).await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
    }

    fn listening(&mut self) -> Option<String> {
        let ended = self.child.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "the daemon ended at once:\n{}", self.log());
        let log = self.log();
        let line = log[self.began..].lines().find(|line| line.contains("the admin API listens"))?;
        let (_, address) = line.split_once("address=")?;
        Some(format!("http://{}", address.split_whitespace().next()?))
    }

    fn with_own_settings(&self) -> String {
        let mut settings: toml::Table = self.settings.parse().unwrap();
        let url = settings.get("redis").and_then(|redis| redis.get("url")?.as_str());
        let password = url.and_then(password_file);
        let mut section = |name: &str, key: &str, value: toml::Value, unless_set: bool| {
            let section = settings.entry(name).or_insert_with(|| toml::Table::new().into());
            let section = section.as_table_mut().unwrap();
            if !unless_set || !section.contains_key(key) {
                section.insert(key.to_owned(), value);
            }
        };
        let state = self.folder.path().join("state");
        section("server", "listen", "127.0.0.1:0".into(), false);
        section("server", "state_dir", state.to_str().unwrap().into(), false);
        section("catcher", "listen", "127.0.0.1:0".into(), false);
        section("public", "listen", "127.0.0.1:0".into(), true);
        section("send", "lease_ms", 1000.into(), true);
        if let Some(file) = password {
            section("redis", "password_file", file.to_str().unwrap().into(), true);
        }
        let roles = ["prepare_deliveries", "start_deliveries", "administration", "monitoring"];
        let mut token = toml::Table::new();
        token.insert("name".into(), "test".into());
        token
            .insert("sha256".into(), data_encoding::HEXLOWER.encode(&Sha256::digest(TOKEN)).into());
        token.insert("roles".into(), roles.map(toml::Value::from).to_vec().into());
        let others = settings.get("auth").and_then(|auth| auth.get("tokens")).cloned();
        let mut tokens = others.and_then(|all| all.as_array().cloned()).unwrap_or_default();
        tokens.push(token.into());
        let auth = settings.entry("auth").or_insert_with(|| toml::Table::new().into());
        auth.as_table_mut().unwrap().insert("tokens".into(), tokens.into());
        settings.to_string()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!(
                "the daemon logged:\n{}",
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        self.kill();
        if let Some(left) = self.embedded_pid() {
            let _ = kill_process(left, Signal::KILL);
        }
    }
}
