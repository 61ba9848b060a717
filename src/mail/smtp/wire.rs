//! The bytes of an SMTP session: writes and replies, each with a time limit.

use std::{
    io,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use crate::domain::outcome::Reply;

/// The longest line of a reply. RFC 5321, 4.5.3.1.5 allows 512 bytes, but servers exceed it.
const LINE_LIMIT_BYTES: usize = 4096;
/// The longest reply, with all its lines.
const REPLY_LIMIT_BYTES: usize = 64 * 1024;

/// Why a session broke. The texts quote no reply of the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("connection closed by the server")]
    Closed,
    #[error("no answer within {0} ms")]
    TimedOut(u128),
    #[error("connection broken: {0}")]
    Broken(String),
    #[error("not an SMTP reply")]
    Garbage,
    #[error("TLS: {0}")]
    Tls(String),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            // the text is kept, not the kind: a host that is not found has no kind of its own
            _ => Self::Broken(error.to_string()),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl Stream {
    fn io(&mut self) -> &mut dyn Duplex {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.as_mut(),
        }
    }
}

/// One open connection to the relay.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    /// Bytes that were read and not yet parsed. Pipelined replies arrive together.
    unread: Vec<u8>,
}

impl Wire {
    /// A connection without TLS.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), unread: Vec::new() }
    }

    /// The same session over TLS. The caller sets the time limit.
    ///
    /// # Errors
    ///
    /// The handshake failed, or unencrypted bytes follow the reply to STARTTLS. An attacker could
    /// have sent these (CVE-2011-0411).
    pub async fn secured(
        self,
        tls: &TlsConnector,
        name: ServerName<'static>,
    ) -> Result<Self, WireError> {
        match self.stream {
            Stream::Plain(stream) if self.unread.is_empty() => {
                let stream =
                    tls.connect(name, stream).await.map_err(|e| WireError::Tls(e.to_string()))?;
                Ok(Self { stream: Stream::Tls(Box::new(stream)), unread: Vec::new() })
            }
            _ => Err(WireError::Garbage),
        }
    }

    /// Whether the session runs over TLS.
    pub fn is_secured(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Writes all of `bytes` and flushes.
    ///
    /// # Errors
    ///
    /// The time is over, or the connection broke. A part of the bytes may have been sent.
    pub async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), WireError> {
        let io = self.stream.io();
        let write = async {
            io.write_all(bytes).await?;
            io.flush().await
        };
        within(limit, async { Ok(write.await?) }).await
    }

    /// The next complete reply.
    ///
    /// # Errors
    ///
    /// The time is over, the connection ended or broke, or the bytes are no reply (RFC 5321, 4.2).
    pub async fn reply(&mut self, limit: Duration) -> Result<Reply, WireError> {
        let lines = self.reply_lines(limit).await?;
        Reply::parse(&lines).map_err(|_| WireError::Garbage)
    }

    /// The lines of the next complete reply, as they came. EHLO needs them.
    ///
    /// # Errors
    ///
    /// As [`Wire::reply`].
    pub async fn reply_lines(&mut self, limit: Duration) -> Result<String, WireError> {
        within(limit, self.read_reply()).await
    }

    async fn read_reply(&mut self) -> Result<String, WireError> {
        let mut parsed = 0;
        loop {
            while let Some(length) = self.unread[parsed..].iter().position(|b| *b == b'\n') {
                let line = &self.unread[parsed..parsed + length];
                if length > LINE_LIMIT_BYTES || !is_reply_line(line) {
                    return Err(WireError::Garbage);
                }
                let is_last = line.get(3) != Some(&b'-');
                parsed += length + 1;
                if is_last {
                    let lines = String::from_utf8_lossy(&self.unread[..parsed]).into_owned();
                    self.unread.drain(..parsed);
                    return Ok(lines);
                }
            }
            if self.unread.len() - parsed > LINE_LIMIT_BYTES
                || self.unread.len() > REPLY_LIMIT_BYTES
            {
                return Err(WireError::Garbage);
            }
            if self.stream.io().read_buf(&mut self.unread).await? == 0 {
                return Err(WireError::Closed);
            }
        }
    }

    /// Whether the server has sent nothing since the last reply: no 421, and no end of the stream.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        self.unread.is_empty()
            && Pin::new(self.stream.io()).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// Sends QUIT, waits for the reply, and closes the connection (RFC 5321, 4.1.1.10).
    ///
    /// Each of the three steps takes at most `limit`.
    pub async fn quit(mut self, limit: Duration) {
        if self.write(b"QUIT\r\n", limit).await.is_ok() {
            let _ = self.reply(limit).await;
            let _ = timeout(limit, self.stream.io().shutdown()).await;
        }
    }

    /// The IP address of this end, for the argument of EHLO.
    pub fn local_ip(&self) -> Option<std::net::IpAddr> {
        let tcp = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        tcp.local_addr().ok().map(|address| address.ip())
    }
}

/// Runs `step` with a time limit.
///
/// # Errors
///
/// The error of the step, or [`WireError::TimedOut`].
pub async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    match timeout(limit, step).await {
        Ok(ended) => ended,
        Err(_) => Err(WireError::TimedOut(limit.as_millis())),
    }
}

fn is_reply_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    matches!(line, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'])
        || matches!(line, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..])
}
