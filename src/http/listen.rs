//! A listener with its limits: connections at a time, sizes and time-outs.

use std::{convert::Infallible, future::poll_fn, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, http::Method, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::config;

/// The largest head of a request, in bytes. A larger one is answered with 431.
const HEAD_LIMIT: usize = 16 * 1024;

/// How long a client may go on sending after it was answered.
const LINGER: Duration = Duration::from_secs(2);

/// The address that a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Answers the requests of a listener.
pub trait Respond: Clone + Send + Unpin + 'static {
    /// Answers one request.
    fn respond(
        self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response> + Send;
}

impl Respond for Router {
    async fn respond(self, peer: Peer, mut request: Request<Incoming>) -> Response {
        request.extensions_mut().insert(peer);
        self.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {})
    }
}

/// The method as a metric's label. A client may invent methods, so unknown ones share one label.
pub fn method_label(method: &Method) -> &'static str {
    ["GET", "POST", "PUT", "DELETE"].into_iter().find(|known| method == known).unwrap_or("other")
}

/// Serves a listener until `end` is cancelled.
///
/// At most `server.connections` connections are open at a time. Further clients wait until
/// one of them ends.
pub async fn serve(
    listener: TcpListener,
    respond: impl Respond,
    server: config::ServerSettings,
    end: CancellationToken,
    tasks: TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(server.connections));
    while let Some(Ok(slot)) = end.run_until_cancelled(slots.clone().acquire_owned()).await {
        let (stream, address) = match end.run_until_cancelled(listener.accept()).await {
            Some(Ok(accepted)) => accepted,
            Some(Err(_)) => {
                // The process may be out of file descriptors; the listener itself is fine.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => return,
        };
        let session =
            connection(stream, Peer(address.ip()), respond.clone(), server.clone(), end.clone());
        tasks.spawn(async move {
            session.await;
            drop(slot);
        });
    }
}

/// Serves one connection, with a time limit for each head and each write that makes no progress.
async fn connection(
    stream: TcpStream,
    peer: Peer,
    respond: impl Respond,
    server: config::ServerSettings,
    end: CancellationToken,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_millis(server.stall_timeout_ms)));
    let service = service_fn(move |request| {
        let respond = respond.clone();
        Box::pin(async move { Ok::<_, Infallible>(respond.respond(peer, request).await) })
    });
    let mut builder = http1::Builder::new();
    let head_timeout = Duration::from_millis(server.head_timeout_ms);
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_LIMIT);
    let mut served = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| served.poll_without_shutdown(cx)) => ended,
        () = end.cancelled() => {
            Pin::new(&mut served).graceful_shutdown();
            poll_fn(|cx| served.poll_without_shutdown(cx)).await
        }
    };
    if ended.is_ok() {
        linger(served.into_parts().io.into_inner()).await;
    }
}

/// Closes in two steps (RFC 9112, section 9.6).
///
/// A client may still be sending when its request is refused, and must be able to read the answer.
/// Closing a connection with unread input would reset it.
async fn linger(mut stream: Pin<Box<TimeoutStream<TcpStream>>>) {
    let farewell = async {
        let _ = stream.shutdown().await;
        let mut unread = vec![0; 16 * 1024];
        while stream.read(&mut unread).await.is_ok_and(|n| n > 0) {}
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
}
