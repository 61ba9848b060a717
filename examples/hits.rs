//! A pixel server and a load generator for the benchmark of hits.
//!
//! `hits bare PORT` serves a pixel and records nothing. `hits load ADDRESS SECONDS CONNECTIONS`
//! requests the paths of its standard input, in turn. It prints how many answers with status 200
//! came per second.
#![allow(clippy::print_stdout)]

use std::{
    io::stdin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::{Router, extract::Path, http::header, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const AGENT: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Thunderbird/128.4.0";

/// The size of the daemon's open pixel.
const PIXEL_BYTES: usize = 42;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["bare", port] => bare(port.parse()?).await,
        ["load", address, seconds, connections] => {
            let paths: Vec<String> = stdin().lines().collect::<Result<_, _>>()?;
            ensure!(!paths.is_empty(), "no paths");
            let rate = load(
                address,
                Duration::from_secs(seconds.parse()?),
                connections.parse()?,
                paths.into(),
            )
            .await?;
            println!("{rate:.0}");
            Ok(())
        }
        _ => anyhow::bail!("bare PORT, or load ADDRESS SECONDS CONNECTIONS"),
    }
}

async fn bare(port: u16) -> anyhow::Result<()> {
    let pixel = |Path(_): Path<String>| async {
        (
            [
                (header::CONTENT_TYPE, "image/gif"),
                (header::CACHE_CONTROL, "no-cache, max-age=0, private"),
            ],
            [0; PIXEL_BYTES],
        )
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, Router::new().route("/o/{token}", get(pixel))).await?)
}

async fn load(
    address: &str,
    length: Duration,
    connections: usize,
    paths: Arc<[String]>,
) -> anyhow::Result<f64> {
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut visitors = JoinSet::new();
    for _ in 0..connections {
        let (stream, paths, next) =
            (TcpStream::connect(address).await?, paths.clone(), next.clone());
        stream.set_nodelay(true)?;
        visitors.spawn(visit(stream, paths, next, began + length));
    }
    let mut answered = 0;
    while let Some(visitor) = visitors.join_next().await {
        answered += visitor??;
    }
    Ok(answered as f64 / began.elapsed().as_secs_f64())
}

async fn visit(
    mut stream: TcpStream,
    paths: Arc<[String]>,
    next: Arc<AtomicUsize>,
    until: Instant,
) -> anyhow::Result<usize> {
    let (mut answered, mut answer) = (0, vec![0; 4096]);
    while Instant::now() < until {
        let path = &paths[next.fetch_add(1, Ordering::Relaxed) % paths.len()];
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {AGENT}\r\nAccept: image/*\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut read = 0;
        // Head and pixel come in one piece, or the rest follows.
        while !is_whole(&answer[..read]) {
            let n = stream.read(&mut answer[read..]).await?;
            ensure!(n > 0, "the server closed");
            read += n;
        }
        let head = std::str::from_utf8(answer.get(..12).context("a status line")?)?;
        ensure!(head == "HTTP/1.1 200", "{head}");
        answered += 1;
    }
    Ok(answered)
}

fn is_whole(answer: &[u8]) -> bool {
    answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .is_some_and(|head| answer.len() >= head + 4 + PIXEL_BYTES)
}
