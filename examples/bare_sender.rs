//! The bare sender of the benchmark: sends the same bytes over and over, pipelined.
//!
//! It pipelines as the daemon does, but renders, claims and records nothing. Use:
//! `bare_sender ADDRESS MESSAGES SIZE CONNECTIONS`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, messages, size, connections] = arguments.as_slice() else {
        return Err("usage: bare_sender ADDRESS MESSAGES SIZE CONNECTIONS".into());
    };
    let (messages, size, connections): (usize, usize, usize) =
        (messages.parse()?, size.parse()?, connections.parse()?);
    let share = move |i: usize| messages / connections + usize::from(i < messages % connections);
    let senders: Vec<_> = (0..connections)
        .map(|i| {
            thread::spawn({
                let address = address.clone();
                move || send(&address, share(i), size)
            })
        })
        .collect();
    senders.into_iter().try_for_each(|sender| sender.join().map_err(|_| "a sender panicked")?)
}

fn send(address: &str, messages: usize, size: usize) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    replies(&mut stream, 1)?;
    stream.write_all(b"EHLO bench.example\r\n")?;
    replies(&mut stream, 1)?;
    let envelope = "MAIL FROM:<news@shop.example>\r\nRCPT TO:<user@example.com>\r\nDATA\r\n";
    let line = format!("{}\r\n", "x".repeat(70));
    let body: String = line.repeat(size.div_ceil(line.len()));
    let (joined, last) = (
        format!("Subject: x\r\n\r\n{body}.\r\n{envelope}"),
        format!("Subject: x\r\n\r\n{body}.\r\n"),
    );
    for i in 0..messages {
        if i == 0 {
            stream.write_all(envelope.as_bytes())?;
            replies(&mut stream, 3)?;
        }
        let is_last = i + 1 == messages;
        stream.write_all(if is_last { last.as_bytes() } else { joined.as_bytes() })?;
        replies(&mut stream, if is_last { 1 } else { 4 })?;
    }
    stream.write_all(b"QUIT\r\n")?;
    Ok(())
}

/// Reads so many complete replies, which must all be positive.
fn replies(stream: &mut TcpStream, mut wanted: usize) -> Result<(), Failure> {
    let (mut buffer, mut line) = ([0; 4096], Vec::new());
    while wanted > 0 {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err("the server closed the connection".into());
        }
        for byte in &buffer[..n] {
            line.push(*byte);
            if *byte == b'\n' {
                if !matches!(line[0], b'2' | b'3') {
                    return Err(format!("refused: {}", String::from_utf8_lossy(&line)).into());
                }
                wanted -= usize::from(line.get(3) == Some(&b' '));
                line.clear();
            }
        }
    }
    Ok(())
}
