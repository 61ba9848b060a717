//! A real redis-server on a socket in a temporary folder, which ends with its test.
//!
//! Daemons use it as the user that the documentation gives them. The tests themselves connect as
//! the default user, which may do everything.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, aio::MultiplexedConnection};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use super::{
    LIMIT, eventually_blocking, missing,
    ports::try_ports,
    redis_user::{PASSWORD, redis_user},
    text,
};

const START: Duration = LIMIT;
const USERS: [&str; 3] = ["versand", "producer", "exporter"];

pub struct RedisServer {
    folder: TempDir,
    options: Vec<String>,
    child: Option<Child>,
    /// The socket of the master that this server has replaced.
    place: Option<PathBuf>,
}

impl RedisServer {
    /// Starts with strict durability, as the embedded default has it: the append-only file is
    /// synced at every write.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Adds options such as `["--appendfsync", "everysec"]` after the strict ones. The last value
    /// of an option wins.
    pub fn start_with(options: &[&str]) -> Self {
        let mut server = Self::new(options);
        server.launch();
        server
    }

    /// Starts a server that also listens on a port of 127.0.0.1, for a replica or a cluster.
    /// Returns both.
    pub fn start_on_port(options: &[&str]) -> (Self, u16) {
        try_ports(|ports| Some((Self::start_on(ports, options)?, ports[0])))
    }

    /// Starts with a port for clients and one for the other nodes of a cluster. Returns `None` if
    /// one of them is in use.
    pub(super) fn start_on(ports: [u16; 2], options: &[&str]) -> Option<Self> {
        let [port, bus] = ports.map(|port| port.to_string());
        let on_ports = ["--port", &port, "--cluster-port", &bus, "--bind", "127.0.0.1"];
        let mut server = Self::new(&[&on_ports, options].concat());
        match server.try_launch() {
            Ok(()) => Some(server),
            Err(log) if log.contains("Address already in use") => None,
            Err(log) => panic!("redis-server ended at once:\n{log}"),
        }
    }

    fn new(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("versand-redis-").tempdir().unwrap();
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        Self {
            folder,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            child: None,
            place: None,
        }
    }

    pub fn socket(&self) -> PathBuf {
        if let Some(place) = &self.place {
            return place.clone();
        }
        self.folder.path().join("redis.sock")
    }

    /// The URL for a daemon. It names the user of the daemon, whose password is in
    /// [`password_file`].
    pub fn url(&self) -> String {
        self.url_for("versand")
    }

    /// The URL without a user.
    pub fn url_of_default_user(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// The URL for one of the users of Redis in the documentation.
    pub fn url_for(&self, user: &str) -> String {
        format!("{}?user={user}", self.url_of_default_user())
    }

    /// The arguments of `examples/confirm_send.py` for the user of a producer.
    pub fn producer_arguments(&self) -> [String; 6] {
        let url = self.url_of_default_user();
        let file = self.settings().password_file.display().to_string();
        let [name, user, password] = ["--redis", "--user", "--password-file"].map(str::to_owned);
        [name, url, user, "producer".to_owned(), password, file]
    }

    /// The connection information for one of the users of Redis in the documentation.
    pub fn connection_info(&self, user: &str) -> redis::ConnectionInfo {
        let info = self.url_for(user).as_str().into_connection_info().unwrap();
        let settings = info.redis_settings().clone().set_password(PASSWORD);
        info.set_redis_settings(settings)
    }

    /// The settings of a store on this server.
    pub fn settings(&self) -> versand::config::RedisSettings {
        let mut settings = versand::config::Config::from_toml("").unwrap().redis;
        settings.url = self.url();
        settings.password_file = password_file(&settings.url).unwrap();
        settings
    }

    /// The length of the append-only file now.
    pub fn log_length(&self) -> u64 {
        std::fs::metadata(self.append_only_file()).unwrap().len()
    }

    /// Kills the server, cuts the append-only file to this length, and starts the server again. It
    /// has gone back in time, as after a crash of its machine under `appendfsync everysec`.
    pub fn roll_back(&mut self, length: u64) {
        self.kill();
        File::options().write(true).open(self.append_only_file()).unwrap().set_len(length).unwrap();
        self.launch();
    }

    /// Takes the place of `master`, which is killed. Clients of its socket reach this server, now
    /// and after a restart.
    pub fn take_over(&mut self, master: &mut Self) {
        master.kill();
        assert_eq!(self.ask("REPLICAOF NO ONE").unwrap(), "+OK\r\n");
        std::fs::rename(self.socket(), master.socket()).unwrap();
        self.options.clear();
        self.place = Some(master.socket());
    }

    /// The append-only file that grows.
    pub fn append_only_file(&self) -> PathBuf {
        self.folder.path().join("appendonlydir/appendonly.aof.1.incr.aof")
    }

    /// From now on no file grows beyond `bytes`, as on a full disk. Redis meets almost the same
    /// error (EFBIG and a short write instead of ENOSPC), and the test needs no root.
    pub fn fill_disk(&self, bytes: u64) {
        limit_files(self.pid(), Some(bytes));
    }

    /// Removes the limit: there is room again.
    pub fn make_room(&self) {
        limit_files(self.pid(), None);
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("redis-server is running"))
    }

    /// True while the process lives. A Redis that syncs at every write ends by itself if it cannot
    /// write its append-only file.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Sends SIGKILL. Synced data stays in the folder.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.child.take().unwrap();
        eventually_blocking("redis-server ends after SIGTERM", START, || child.try_wait().unwrap());
    }

    /// Starts again on the same folder and socket. A server that still runs is killed first.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Sends SIGSTOP. Connections stay open and nothing answers until [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends one command and returns the raw reply (RESP), without a client library.
    pub fn ask(&self, command: &str) -> std::io::Result<String> {
        self.ask_within(LIMIT, command)
    }

    /// Like [`Self::ask`], for a server that may not answer.
    pub fn ask_within(&self, limit: Duration, command: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let own = reply.strip_suffix("+OK\r\n").unwrap_or(&reply);
        Ok(own.to_owned())
    }

    fn launch(&mut self) {
        self.try_launch().unwrap_or_else(|log| panic!("redis-server ended at once:\n{log}"));
    }

    /// Returns the log if the server ends at once.
    fn try_launch(&mut self) -> Result<(), String> {
        let path = self.folder.path();
        // The socket of a killed server is left over: nobody listens on it.
        let _ = std::fs::remove_file(self.socket());
        let log = path.join("log");
        // A shell starts it, so that the file limit is an error for Redis and not a signal.
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; exec redis-server \"$@\"", "redis-server"])
            .args(["--port", "0", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--dir"])
            .arg(path)
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--logfile")
            .arg(&log)
            .args(
                USERS
                    .iter()
                    .flat_map(|user| [vec!["--user".to_owned()], redis_user(user)].concat()),
            )
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("{}", missing(&command, &e)));
        self.child = Some(child);
        eventually_blocking("redis-server answers", START, || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none_or(|ended| ended.code() != Some(127)),
                "redis-server is not installed: `make test` installs it"
            );
            if ended.is_some() {
                return Some(Err(text(&log)));
            }
            let reply = self.ask_within(Duration::from_secs(1), "PING").ok()?;
            (reply == "+PONG\r\n" || reply.starts_with("-NOAUTH")).then_some(Ok(()))
        })
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }
}

/// Sets the size in bytes beyond which no file of a process grows. `None` removes the limit.
pub fn limit_files(pid: Pid, bytes: Option<u64>) {
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// The file with the password of the user that this URL of a [`RedisServer`] names.
pub fn password_file(url: &str) -> Option<PathBuf> {
    let (socket, _) = url.strip_prefix("redis+unix://")?.split_once("?user=")?;
    Some(PathBuf::from(socket).with_file_name("password"))
}

/// A connection of the default user, whatever user the URL names. It waits as long as a test does:
/// the redis crate gives up after half a second, unless it is told otherwise.
pub async fn connect(url: &str) -> MultiplexedConnection {
    let (url, _) = url.split_once('?').unwrap_or((url, ""));
    connect_as(url).await
}

/// A connection of the default user to the server of a store.
pub async fn observe(store: &versand::store::Redis) -> MultiplexedConnection {
    connect(&format!("redis+unix://{}", store.address())).await
}

/// Like [`connect`], as the user that the URL or the connection information names.
pub async fn connect_as(client: impl IntoConnectionInfo) -> MultiplexedConnection {
    let patient = AsyncConnectionConfig::new()
        .set_response_timeout(Some(LIMIT))
        .set_connection_timeout(Some(LIMIT));
    let client = Client::open(client).expect("url");
    client
        .get_multiplexed_async_connection_with_config(&patient)
        .await
        .expect("connect to redis-server")
}

impl Drop for RedisServer {
    /// Checks that the daemon has asked for nothing that its user may not do.
    fn drop(&mut self) {
        let refused = match self.is_running() {
            true => self.ask_within(Duration::from_secs(1), "ACL LOG").unwrap_or_default(),
            false => String::new(),
        };
        self.kill();
        let of_daemon = refused.contains("\r\nversand\r\n");
        assert!(!of_daemon || std::thread::panicking(), "Redis has refused the daemon:\n{refused}");
    }
}
