//! Ports of 127.0.0.1: one that refuses connections, and those that a program of others binds itself.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpSocket;

/// Below the ports that the system gives to whoever asks for any; ten thousand above them are free of those, too.
const FIRST: u32 = 12_000;
const COUNT: u32 = 10_000;

/// A port on which nobody listens. It is bound as long as this lives, so that nobody else gets it.
pub struct ClosedPort(TcpSocket);

impl ClosedPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // whoever owns this may listen on it all the same, by way of another socket
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

/// The next port to try with a program that cannot pick a free one and say which. It may be in use: then `start` returns
/// `None`, and the next one is tried.
pub fn try_ports<const N: usize, T>(mut start: impl FnMut([u16; N]) -> Option<T>) -> T {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = || {
        let offset = std::process::id() * 61 + NEXT.fetch_add(1, Ordering::Relaxed);
        u16::try_from(FIRST + offset % COUNT).unwrap()
    };
    let found = (0..100).find_map(|_| start(std::array::from_fn(|_| next())));
    found.expect("a free port among a hundred")
}
