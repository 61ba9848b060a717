//! The catcher's end of a connection: lines in, replies out, both buffered.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{sleep, timeout},
};

/// RFC 5321, 4.5.3.1.4 allows 512 bytes; parameters and long addresses may add to it.
const LINE_LIMIT_BYTES: usize = 4096;
/// RFC 5321, 4.5.3.2.7.
const IDLE: Duration = Duration::from_secs(300);
const READ_BYTES: usize = 16 * 1024;

/// The client is gone, silent for too long, or to be sent away.
pub struct StreamEnded;

pub enum InputLine {
    Text(String),
    TooLong,
}

pub struct ClientStream<S> {
    stream: S,
    input: Vec<u8>,
    /// Bytes of `input` that were used.
    used: usize,
    output: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, input: Vec::new(), used: 0, output: Vec::new() }
    }

    /// The next line without its end. What was answered so far goes out before waiting.
    pub async fn line(&mut self) -> Result<InputLine, StreamEnded> {
        let mut skipped = false;
        loop {
            if let Some(end) = self.rest().iter().position(|b| *b == b'\n') {
                let line =
                    String::from_utf8_lossy(self.rest()[..end].trim_ascii_end()).into_owned();
                self.used += end + 1;
                return Ok(if skipped || line.len() > LINE_LIMIT_BYTES {
                    InputLine::TooLong
                } else {
                    InputLine::Text(line)
                });
            }
            if self.rest().len() > LINE_LIMIT_BYTES {
                skipped = true;
                self.used = self.input.len();
            }
            self.fill().await?;
        }
    }

    /// The message up to its final dot, dots unstuffed; `None` if it is above `limit_bytes`.
    pub async fn message(&mut self, limit_bytes: usize) -> Result<Option<Vec<u8>>, StreamEnded> {
        let mut message = Some(Vec::new());
        // In a line whose start was taken already: dots mean nothing there.
        let mut inside = false;
        loop {
            let rest = &self.input[self.used..];
            let Some(end) = rest.iter().position(|b| *b == b'\n') else {
                // A line without an end: part of the message, unless it may be the final dot.
                if rest.len() > LINE_LIMIT_BYTES {
                    let rest = if inside { rest } else { rest.strip_prefix(b".").unwrap_or(rest) };
                    append(&mut message, rest, limit_bytes);
                    self.used = self.input.len();
                    inside = true;
                }
                self.fill().await?;
                continue;
            };
            let line = &rest[..=end];
            self.used += end + 1;
            if line == b".\r\n" && !inside {
                return Ok(message);
            }
            let line = if inside { line } else { line.strip_prefix(b".").unwrap_or(line) };
            append(&mut message, line, limit_bytes);
            inside = false;
        }
    }

    /// Whether more has come than was read.
    pub fn has_input(&self) -> bool {
        !self.rest().is_empty()
    }

    pub fn reply(&mut self, reply: &str) {
        self.output.extend_from_slice(reply.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    pub async fn flush(&mut self) -> Result<(), StreamEnded> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await.map_err(|_| StreamEnded)?;
            self.stream.flush().await.map_err(|_| StreamEnded)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Sends a reply spread over `duration`.
    pub async fn reply_slowly(
        &mut self,
        reply: &str,
        duration: Duration,
    ) -> Result<(), StreamEnded> {
        self.flush().await?;
        let line = format!("{reply}\r\n");
        let pause = duration / u32::try_from(line.len()).unwrap_or(u32::MAX);
        for byte in line.bytes() {
            self.output.push(byte);
            self.flush().await?;
            sleep(pause).await;
        }
        Ok(())
    }

    /// Waits until at least one more byte is there.
    pub async fn fill(&mut self) -> Result<(), StreamEnded> {
        self.flush().await?;
        self.input.drain(..self.used);
        self.used = 0;
        self.input.reserve(READ_BYTES);
        match timeout(IDLE, self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(1..)) => Ok(()),
            _ => Err(StreamEnded),
        }
    }

    pub async fn close(&mut self) {
        let _ = self.flush().await;
        let _ = self.stream.shutdown().await;
    }

    fn rest(&self) -> &[u8] {
        &self.input[self.used..]
    }
}

fn append(message: &mut Option<Vec<u8>>, bytes: &[u8], limit_bytes: usize) {
    match message {
        Some(kept) if kept.len() + bytes.len() <= limit_bytes => kept.extend_from_slice(bytes),
        _ => *message = None,
    }
}
