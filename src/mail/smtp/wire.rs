//! The bytes of an SMTP session: writes with a time limit, replies read strictly.

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

/// RFC 5321, 4.5.3.1.5 allows 512 bytes a line; real servers exceed it.
const LINE_LIMIT_BYTES: usize = 4096;
const REPLY_LIMIT_BYTES: usize = 64 * 1024;

/// What a session can break with. The texts hold nothing that the server wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("connection closed by the server")]
    Closed,
    #[error("no answer within {0} ms")]
    TimedOut(u128),
    #[error("connection broken: {0}")]
    Broken(io::ErrorKind),
    #[error("not an SMTP reply")]
    Garbage,
    #[error("TLS: {0}")]
    Tls(String),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            kind => Self::Broken(kind),
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
    /// Read, not yet parsed: pipelined replies come together.
    unread: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), unread: Vec::new() }
    }

    /// The session over TLS; the limit is the caller's.
    ///
    /// # Errors
    /// A failed handshake, or bytes that came in the clear after the reply to STARTTLS: they could be
    /// an attacker's (CVE-2011-0411).
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

    pub fn is_secured(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Writes all of `bytes` and flushes.
    ///
    /// # Errors
    /// Time out or a broken connection; part of the bytes may have left.
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
    /// Time out, end of stream, or what RFC 5321, 4.2 does not allow.
    pub async fn reply(&mut self, limit: Duration) -> Result<Reply, WireError> {
        let lines = self.reply_lines(limit).await?;
        Reply::parse(&lines).map_err(|_| WireError::Garbage)
    }

    /// The next complete reply as it came, line by line; EHLO needs the lines.
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
                let last = line.get(3) != Some(&b'-');
                parsed += length + 1;
                if last {
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

    /// Whether the server has said nothing since the last reply: a 421 or a closed connection would wait here.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        self.unread.is_empty()
            && Pin::new(self.stream.io()).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// QUIT; the answer is awaited for `limit` at the most, then the connection is closed (RFC 5321, 4.1.1.10).
    pub async fn quit(mut self, limit: Duration) {
        if self.write(b"QUIT\r\n", limit).await.is_ok() {
            let _ = self.reply(limit).await;
            let _ = timeout(limit, self.stream.io().shutdown()).await;
        }
    }

    /// The address of this end, for the EHLO argument.
    pub fn local_ip(&self) -> Option<std::net::IpAddr> {
        let tcp = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        tcp.local_addr().ok().map(|address| address.ip())
    }
}

/// Bounds `step` in time.
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
