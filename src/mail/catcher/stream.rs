//! The catcher's end of a connection: it reads lines and writes replies, both with a buffer.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{sleep, timeout},
};

/// The longest line. RFC 5321, 4.5.3.1.4 allows 512 bytes, and parameters may add to them.
const LINE_LIMIT_BYTES: usize = 4096;
/// How long a client may be silent (RFC 5321, 4.5.3.2.7).
const IDLE_LIMIT: Duration = Duration::from_secs(300);
const READ_BYTES: usize = 16 * 1024;

/// The connection ends: the client is gone or silent for too long, or the catcher closes it.
pub struct StreamEnded;

/// One line from the client.
pub enum InputLine {
    /// The line without its end.
    Text(String),
    /// The line was longer than the limit.
    TooLong,
}

/// A connection with its buffers.
pub struct ClientStream<S> {
    stream: S,
    input: Vec<u8>,
    /// How many bytes of `input` were used.
    used: usize,
    output: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// A connection with empty buffers.
    pub fn new(stream: S) -> Self {
        Self { stream, input: Vec::new(), used: 0, output: Vec::new() }
    }

    /// The next line. Buffered replies are sent before the wait.
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

    /// The message up to its final dot, without dot stuffing.
    ///
    /// `None` if it is larger than `limit_bytes`.
    pub async fn message(&mut self, limit_bytes: usize) -> Result<Option<Vec<u8>>, StreamEnded> {
        let mut message = Some(Vec::new());
        // Whether the start of the line was read before. A dot in the rest of it means nothing.
        let mut inside = false;
        loop {
            let rest = &self.input[self.used..];
            let Some(end) = rest.iter().position(|b| *b == b'\n') else {
                // A long line without an end cannot be the final dot.
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

    /// Whether bytes were read that are not used yet.
    pub fn has_input(&self) -> bool {
        !self.rest().is_empty()
    }

    /// Appends a reply and CRLF to the buffer.
    pub fn reply(&mut self, reply: &str) {
        self.output.extend_from_slice(reply.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    /// Sends the buffered replies.
    pub async fn flush(&mut self) -> Result<(), StreamEnded> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await.map_err(|_| StreamEnded)?;
            self.stream.flush().await.map_err(|_| StreamEnded)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Sends a reply byte by byte, over `duration`.
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

    /// Sends the buffered replies, and waits for at least one more byte.
    pub async fn fill(&mut self) -> Result<(), StreamEnded> {
        self.flush().await?;
        self.input.drain(..self.used);
        self.used = 0;
        self.input.reserve(READ_BYTES);
        match timeout(IDLE_LIMIT, self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(1..)) => Ok(()),
            _ => Err(StreamEnded),
        }
    }

    /// Sends the buffered replies, and closes the connection.
    pub async fn close(&mut self) {
        let _ = self.flush().await;
        let _ = self.stream.shutdown().await;
    }

    /// The bytes that were read and not used.
    fn rest(&self) -> &[u8] {
        &self.input[self.used..]
    }
}

/// Appends to a message. A message larger than the limit becomes `None`.
fn append(message: &mut Option<Vec<u8>>, bytes: &[u8], limit_bytes: usize) {
    match message {
        Some(kept) if kept.len() + bytes.len() <= limit_bytes => kept.extend_from_slice(bytes),
        _ => *message = None,
    }
}
