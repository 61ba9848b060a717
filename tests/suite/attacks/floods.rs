//! Floods of raw connections, and an honest client that measures its answers meanwhile.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::harness::{LIMIT, daemon::Daemon};

/// More than a listener has slots.
pub const FLOOD: usize = 1100;
/// How long the worst honest answer may take. The daemon's promise is 100 ms; a busy machine that
/// runs all tests at once breaks no test.
const WORST: Duration = Duration::from_secs(2);

/// Lets this process and the daemons that it starts open enough connections.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(16_384, |most| most.min(16_384));
    if limit.current.is_some_and(|now| now < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
            .unwrap();
    }
}

/// The address of a listener, from the daemon's log line.
pub fn listening(daemon: &Daemon, which: &str) -> SocketAddr {
    let log = daemon.log();
    let line = log.lines().rev().find(|line| line.contains(which)).expect("the listener listens");
    let (_, address) = line.split_once("address=").unwrap();
    address.split_whitespace().next().unwrap().parse().unwrap()
}

/// Opens a connection from this address of the loopback network.
pub async fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Opens `n` connections, writes `text` on each, and keeps them open. They come from `127.0.1.1`
/// and the following addresses in turn.
pub async fn flood(to: SocketAddr, n: usize, addresses: usize, text: &str) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for i in 0..n {
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(1 + i % addresses).unwrap());
        let mut stream = connect_from(from, to).await;
        // The daemon may have closed it already.
        let _ = stream.write_all(text.as_bytes()).await;
        open.push(stream);
    }
    open
}

/// The status line that waits on a connection. Empty if the daemon closed it without an answer.
pub async fn status_line(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n")
        && timeout(LIMIT, stream.read(&mut byte)).await.expect("an answer or an end").unwrap_or(0)
            == 1
    {
        answer.push(byte[0]);
    }
    String::from_utf8_lossy(&answer).trim().to_owned()
}

/// Writes a request and reads the whole answer until the daemon closes.
pub async fn ask_from(from: Ipv4Addr, to: SocketAddr, text: &str) -> String {
    let mut stream = connect_from(from, to).await;
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("the daemon closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// An honest client: asks each path of each listener many times, and prints the slowest answer.
pub async fn honest_client(
    what: &str,
    from: Ipv4Addr,
    targets: &[(SocketAddr, &str)],
    token: &str,
) {
    let mut worst = Duration::ZERO;
    for _ in 0..25 {
        for (to, path) in targets {
            let began = Instant::now();
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                 Connection: close\r\n\r\n"
            );
            let answer = ask_from(from, *to, &request).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {path} from {from}: {answer:?}");
            worst = worst.max(began.elapsed());
        }
    }
    eprintln!("{what}: the slowest of {} answers took {worst:?}", 25 * targets.len());
    assert!(worst < WORST, "{what}: {worst:?}");
}
