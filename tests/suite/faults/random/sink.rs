//! The sink of the fault run: a small SMTP server with a journal, without code of the daemon.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::harness::ports::ClosedPort;

/// The delay before every reply but the greeting. A transaction with [`SinkFault::Stall`] has a
/// longer one.
const DELAY: Duration = Duration::from_millis(6);

/// The fault in every third transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkFault {
    Good,
    /// Answers RCPT with 550.
    Refuse,
    /// Answers RCPT, or the end of data, with 451.
    Defer,
    /// Waits two seconds before each reply.
    Stall,
    /// Closes in the middle of the message. The client may have written all of it.
    CloseBefore,
    /// Accepts the message and closes without a reply.
    CloseAfter,
    /// Closes after the end of data and keeps nothing.
    CloseAfterForgetting,
    /// Accepts the message and answers the end of data with a line that is no reply.
    Garbage,
}

/// A transaction, as the sink saw it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub recipient: String,
    pub message_id: String,
    pub began: Instant,
    /// The time at which the end of data was read.
    pub ended: Option<Instant>,
    pub accepted: bool,
    pub refused: bool,
    /// True if the line after the end of data is no reply.
    pub garbled: bool,
    /// The time of the reply to the end of data, or to a refused RCPT.
    pub replied: Option<Instant>,
}

#[derive(Default)]
struct SinkState {
    entries: Vec<Entry>,
    transactions: u64,
    fault: Option<SinkFault>,
}

pub struct Sink {
    state: Arc<Mutex<SinkState>>,
    pub port: u16,
    /// Keeps the port while the sink does not listen on it.
    _kept: ClosedPort,
    serving: AbortHandle,
}

impl Sink {
    pub async fn start() -> Self {
        let kept = ClosedPort::new();
        let port = kept.port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let state = Arc::<Mutex<SinkState>>::default();
        let serving = tokio::spawn(serve(listener, state.clone())).abort_handle();
        Self { state, port, _kept: kept, serving }
    }

    /// Ends all connections, stays away for a while, and comes back on the same port.
    pub async fn restart(&mut self, away: Duration) {
        self.serving.abort();
        sleep(away).await;
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        self.serving = tokio::spawn(serve(listener, self.state.clone())).abort_handle();
    }

    pub fn set(&self, fault: SinkFault) {
        self.state.lock().unwrap().fault = Some(fault);
    }

    pub fn journal(&self) -> Vec<Entry> {
        self.state.lock().unwrap().entries.clone()
    }

    pub fn accepted(&self) -> usize {
        self.state.lock().unwrap().entries.iter().filter(|entry| entry.accepted).count()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<SinkState>>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let state = state.clone();
        // The error of a session is dropped. The client must notice a broken connection.
        sessions.spawn(async move { drop(session(stream, &state).await) });
    }
}

async fn session(stream: TcpStream, state: &Mutex<SinkState>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    writer.write_all(b"220 sink.example ESMTP\r\n").await?;
    let (mut began, mut fault, mut recipient) = (Instant::now(), SinkFault::Good, None);
    loop {
        let Some(line) = read_line(&mut reader).await? else { return Ok(()) };
        let verb = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
        sleep(if fault == SinkFault::Stall { Duration::from_secs(2) } else { DELAY }).await;
        let reply = match verb.as_str() {
            "EHLO" => "250-sink.example\r\n250-8BITMIME\r\n250 PIPELINING\r\n",
            "MAIL" => {
                (began, fault, recipient) = (Instant::now(), next_fault(state), None);
                "250 2.1.0 ok\r\n"
            }
            "RCPT" => {
                let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                match fault {
                    SinkFault::Refuse => {
                        note(
                            state,
                            Entry {
                                refused: true,
                                replied: Some(Instant::now()),
                                ..entry(&address, began)
                            },
                        );
                        "550 5.1.1 no such user\r\n"
                    }
                    SinkFault::Defer if began.elapsed().subsec_nanos() % 2 == 0 => {
                        "451 4.2.1 try again later\r\n"
                    }
                    _ => {
                        recipient = Some(address);
                        "250 2.1.5 ok\r\n"
                    }
                }
            }
            "DATA" if recipient.is_none() => "503 5.5.1 no recipient\r\n",
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await?;
                let address = recipient.take().unwrap_or_default();
                match take_message(&mut reader, state, entry(&address, began), fault).await? {
                    Some((number, reply)) => {
                        writer.write_all(reply.as_bytes()).await?;
                        state.lock().unwrap().entries[number].replied = Some(Instant::now());
                        continue;
                    }
                    None => return Ok(()),
                }
            }
            "RSET" | "NOOP" => "250 2.0.0 ok\r\n",
            "QUIT" => return writer.write_all(b"221 2.0.0 bye\r\n").await,
            _ => "502 5.5.2 what\r\n",
        };
        writer.write_all(reply.as_bytes()).await?;
    }
}

/// Reads a message and decides. Returns the number of its entry and the reply. `None` closes the
/// connection.
async fn take_message(
    reader: &mut BufReader<tokio::net::tcp::OwnedReadHalf>,
    state: &Mutex<SinkState>,
    mut entry: Entry,
    fault: SinkFault,
) -> std::io::Result<Option<(usize, &'static str)>> {
    loop {
        let Some(line) = read_line(reader).await? else { return Ok(None) };
        if fault == SinkFault::CloseBefore {
            note(state, entry);
            return Ok(None);
        }
        if let Some(id) = line.strip_prefix("Message-ID:") {
            entry.message_id = id.trim().to_owned();
        }
        if line == "." {
            break;
        }
    }
    entry.ended = Some(Instant::now());
    entry.accepted = !matches!(fault, SinkFault::Defer | SinkFault::CloseAfterForgetting);
    entry.garbled = fault == SinkFault::Garbage;
    let number = note(state, entry);
    sleep(if fault == SinkFault::Stall { Duration::from_secs(2) } else { DELAY }).await;
    Ok(match fault {
        SinkFault::CloseAfter | SinkFault::CloseAfterForgetting => None,
        SinkFault::Garbage => Some((number, "Hello, this is no reply\r\n")),
        SinkFault::Defer => Some((number, "451 4.3.0 try again later\r\n")),
        _ => Some((number, "250 2.0.0 queued\r\n")),
    })
}

fn next_fault(state: &Mutex<SinkState>) -> SinkFault {
    let mut state = state.lock().unwrap();
    state.transactions += 1;
    let fault = state.fault.unwrap_or(SinkFault::Good);
    if state.transactions.is_multiple_of(3) { fault } else { SinkFault::Good }
}

fn entry(recipient: &str, began: Instant) -> Entry {
    let (recipient, message_id) = (recipient.to_owned(), String::new());
    Entry {
        recipient,
        message_id,
        began,
        ended: None,
        accepted: false,
        refused: false,
        garbled: false,
        replied: None,
    }
}

fn note(state: &Mutex<SinkState>, entry: Entry) -> usize {
    let mut state = state.lock().unwrap();
    state.entries.push(entry);
    state.entries.len() - 1
}

async fn read_line(
    reader: &mut BufReader<tokio::net::tcp::OwnedReadHalf>,
) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}
