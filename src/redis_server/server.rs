//! One redis-server process: launched or adopted, greeted, ended.

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

use super::embedded::EmbeddedError;

/// A server that takes a connection and says nothing for so long is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a server that was told to end may take, to flush its log.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Where a server lives.
pub(super) struct ServerHome {
    pub dir: PathBuf,
    pub socket: PathBuf,
    pub program: String,
}

/// A server that has answered. The connection ends when it does.
pub(super) struct RedisServer {
    pub connection: UnixStream,
    /// None for one that was adopted.
    child: Option<Child>,
    pid: Option<Pid>,
}

pub(super) enum Greeting {
    Ready(UnixStream),
    Loading,
    Nobody,
}

impl ServerHome {
    pub async fn adopt_or_launch(&self) -> Result<RedisServer, EmbeddedError> {
        loop {
            match self.greet().await? {
                Greeting::Ready(connection) => {
                    tracing::info!("embedded Redis adopted");
                    return Ok(RedisServer::new(connection, None));
                }
                Greeting::Loading => sleep(Duration::from_millis(20)).await,
                Greeting::Nobody => return self.launch().await,
            }
        }
    }

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
            .arg(self.dir.join("redis.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the daemon, which still needs Redis while it drains.
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => EmbeddedError::Missing { program: self.program.clone() },
                _ => self.unusable(source),
            })?;
        loop {
            if let Some(status) = child.try_wait().map_err(|e| self.unusable(e))? {
                let reason = last_line(&self.dir.join("redis.log"));
                return Err(EmbeddedError::Ended { status, reason });
            }
            match self.greet().await? {
                Greeting::Ready(connection) => {
                    return Ok(RedisServer::new(connection, Some(child)));
                }
                Greeting::Loading | Greeting::Nobody => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    pub async fn greet(&self) -> Result<Greeting, EmbeddedError> {
        let connect = UnixStream::connect(&self.socket);
        let mut connection = match timeout(ANSWER_LIMIT, connect).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) if is_nobody(&e) => return Ok(Greeting::Nobody),
            Ok(Err(e)) => return Err(self.unusable(e)),
            Err(_) => return Err(self.stuck()),
        };
        let mut line = [0; 64];
        let asked = async {
            connection.write_all(b"PING\r\n").await?;
            connection.read(&mut line).await
        };
        match timeout(ANSWER_LIMIT, asked).await {
            Ok(Ok(read)) if line[..read].starts_with(b"+PONG") => Ok(Greeting::Ready(connection)),
            Ok(Ok(read)) if line[..read].starts_with(b"-LOADING") => Ok(Greeting::Loading),
            Ok(Ok(0)) => Ok(Greeting::Nobody),
            Ok(Err(e)) if is_nobody(&e) => Ok(Greeting::Nobody),
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
    pub fn new(connection: UnixStream, child: Option<Child>) -> Self {
        // Who listens on the socket, as the kernel knows it: the child, or the one that was adopted.
        let pid = connection.peer_cred().ok().and_then(|peer| peer.pid());
        Self { connection, child, pid: pid.and_then(Pid::from_raw) }
    }

    /// Returns when the server closes the connection, which it does when it ends.
    pub async fn ended(&mut self) {
        let mut byte = [0; 1];
        while matches!(self.connection.read(&mut byte).await, Ok(1..)) {}
    }

    pub async fn stop(mut self) {
        // Flushes the append-only file; there are no snapshots to save. A broken pipe means that it has ended.
        let _ = self.connection.write_all(b"SHUTDOWN NOSAVE\r\n").await;
        self.gone().await;
    }

    /// Makes sure that the process has ended: two servers on one append-only file would ruin it.
    pub async fn gone(&mut self) {
        if timeout(END_LIMIT, self.over()).await.is_ok() {
            return;
        }
        tracing::warn!("embedded Redis does not end, killing it");
        if let Some(pid) = self.pid {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = timeout(END_LIMIT, self.over()).await;
    }

    async fn over(&mut self) {
        match &mut self.child {
            Some(child) => {
                let _ = child.wait().await;
            }
            // An adopted one is not ours to wait for, but it closes its connections last.
            None => self.ended().await,
        }
    }
}

fn is_nobody(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(e.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}

/// What the server said last: why it ended.
fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(4096)..];
    let tail = String::from_utf8_lossy(tail);
    let said = tail.lines().rev().find(|line| !line.trim().is_empty());
    said.unwrap_or("its log is empty").trim().to_owned()
}
