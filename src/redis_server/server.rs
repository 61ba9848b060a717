//! One redis-server process: launched or adopted, asked whether it answers, ended.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::embedded_error::EmbeddedError;

/// A server that accepts a connection and does not answer within this time is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a server may take to end, because it must write its append-only file to disk.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Where and how a server runs: its directory, its socket and its program.
pub(super) struct ServerHome {
    pub dir: PathBuf,
    pub socket: PathBuf,
    pub program: String,
}

/// A server that has answered. Its connection ends when the server ends.
pub(super) struct RedisServer {
    pub connection: UnixStream,
    /// The child process, or `None` for an adopted server.
    child: Option<Child>,
    pid: Option<Pid>,
}

/// The answer to PING.
pub(super) enum Answer {
    /// The server is ready; this is a connection to it.
    Ready(UnixStream),
    /// The server reads its append-only file.
    Loading,
    /// No server listens.
    Nobody,
}

impl ServerHome {
    /// The log file of the server.
    pub fn log(&self) -> PathBuf {
        self.dir.join("redis.log")
    }

    /// Adopts the server that listens on the socket, or launches one.
    pub async fn adopt_or_launch(&self) -> Result<RedisServer, EmbeddedError> {
        loop {
            match self.ask().await? {
                Answer::Ready(connection) => {
                    tracing::info!("embedded Redis adopted");
                    return Ok(RedisServer::new(connection, None));
                }
                Answer::Loading => sleep(Duration::from_millis(20)).await,
                Answer::Nobody => return self.launch().await,
            }
        }
    }

    /// Launches a server and waits until it is ready.
    async fn launch(&self) -> Result<RedisServer, EmbeddedError> {
        let mut child = Command::new(&self.program)
            .args(["--port", "0", "--unixsocketperm", "700", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--maxmemory-policy", "noeviction"])
            .arg("--unixsocket")
            .arg(&self.socket)
            .arg("--dir")
            .arg(&self.dir)
            .arg("--logfile")
            .arg(self.log())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C must reach the daemon only, which still needs Redis during its shutdown.
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => EmbeddedError::Missing { program: self.program.clone() },
                _ => self.unusable(source),
            })?;
        loop {
            if let Some(status) = child.try_wait().map_err(|e| self.unusable(e))? {
                let reason = last_line(&self.log());
                return Err(EmbeddedError::Ended { status, reason });
            }
            match self.ask().await? {
                Answer::Ready(connection) => {
                    return Ok(RedisServer::new(connection, Some(child)));
                }
                Answer::Loading | Answer::Nobody => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Asks the server whether it is ready.
    pub async fn ask(&self) -> Result<Answer, EmbeddedError> {
        let connect = UnixStream::connect(&self.socket);
        let mut connection = match timeout(ANSWER_LIMIT, connect).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) if is_nobody(&e) => return Ok(Answer::Nobody),
            Ok(Err(e)) => return Err(self.unusable(e)),
            Err(_) => return Err(self.stuck()),
        };
        let mut line = [0; 64];
        let asked = async {
            connection.write_all(b"PING\r\n").await?;
            connection.read(&mut line).await
        };
        match timeout(ANSWER_LIMIT, asked).await {
            Ok(Ok(read)) if line[..read].starts_with(b"+PONG") => Ok(Answer::Ready(connection)),
            Ok(Ok(read)) if line[..read].starts_with(b"-LOADING") => Ok(Answer::Loading),
            Ok(Ok(0)) => Ok(Answer::Nobody),
            Ok(Err(e)) if is_nobody(&e) => Ok(Answer::Nobody),
            Ok(Err(e)) => Err(self.unusable(e)),
            Ok(Ok(_)) | Err(_) => Err(self.stuck()),
        }
    }

    fn stuck(&self) -> EmbeddedError {
        EmbeddedError::Stuck { path: self.socket.clone() }
    }

    fn unusable(&self, source: io::Error) -> EmbeddedError {
        EmbeddedError::Unusable { path: self.dir.clone(), source }
    }
}

impl RedisServer {
    /// A server that has answered on `connection`.
    pub fn new(connection: UnixStream, child: Option<Child>) -> Self {
        // The kernel knows the process at the other end of the socket, also of an adopted server.
        let pid = connection.peer_cred().ok().and_then(|peer| peer.pid());
        Self { connection, child, pid: pid.and_then(Pid::from_raw) }
    }

    /// Whether another process launched the server.
    pub fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    /// Waits until the connection ends, which happens when the server ends.
    pub async fn ended(&mut self) {
        let mut byte = [0; 1];
        while matches!(self.connection.read(&mut byte).await, Ok(1..)) {}
    }

    /// Stops the server after it has written everything to disk.
    pub async fn stop(mut self) {
        // SHUTDOWN writes the append-only file to disk. NOSAVE: there is no snapshot to save.
        // If the command cannot be sent, the server has ended already.
        let _ = self.connection.write_all(b"SHUTDOWN NOSAVE\r\n").await;
        self.make_sure_it_ended().await;
    }

    /// Waits until the process has ended, and kills it if this takes too long. Two servers on one
    /// append-only file would destroy the file.
    pub async fn make_sure_it_ended(&mut self) {
        if timeout(END_LIMIT, self.wait()).await.is_ok() {
            return;
        }
        tracing::warn!("embedded Redis does not end, killing it");
        if let Some(pid) = self.pid {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = timeout(END_LIMIT, self.wait()).await;
    }

    async fn wait(&mut self) {
        match &mut self.child {
            Some(child) => {
                let _ = child.wait().await;
            }
            // An adopted server is not a child. It closes its connections at its very end.
            None => self.ended().await,
        }
    }
}

/// Whether an error means that no server listens.
fn is_nobody(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(e.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}

/// The last line of the server's log, which says why the server ended.
fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(4096)..];
    let tail = String::from_utf8_lossy(tail);
    let last = tail.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("its log is empty").trim().to_owned()
}
