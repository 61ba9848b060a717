//! Ports of 127.0.0.1: closed ones, and numbers for programs that bind a port themselves.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpSocket;

/// The first of ten thousand numbers below the range of ephemeral ports.
const FIRST: u32 = 12_000;
const COUNT: u32 = 10_000;

/// A port on which nobody listens. It stays bound, so that no other process gets it.
pub struct ClosedPort(TcpSocket);

impl ClosedPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // The owner of the socket may still listen on the port with another socket.
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

/// Starts a program that cannot pick free ports itself, on the next `N` ports. If one of them is in
/// use, `start` returns `None`, and the following ports are tried.
pub fn try_ports<const N: usize, T>(mut start: impl FnMut([u16; N]) -> Option<T>) -> T {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = || {
        let offset = std::process::id() * 61 + NEXT.fetch_add(1, Ordering::Relaxed);
        u16::try_from(FIRST + offset % COUNT).unwrap()
    };
    let found = (0..100).find_map(|_| start(std::array::from_fn(|_| next())));
    found.expect("a free port among a hundred")
}
