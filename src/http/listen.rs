//! A listener: how many connections it serves at a time, and how long each may take for what.

use std::{convert::Infallible, future::poll_fn, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response};
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

/// Largest head of a request, in bytes; a larger one is answered with 431.
const HEAD_LIMIT: usize = 16 * 1024;

/// How long a client that was answered may go on sending.
const LINGER: Duration = Duration::from_secs(2);

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// What answers the requests of a listener.
pub trait Respond: Clone + Send + Unpin + 'static {
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

/// Serves until `end`. Who comes when all connections are taken waits to be accepted.
pub async fn serve(
    listener: TcpListener,
    respond: impl Respond,
    server: config::ServerSettings,
    end: CancellationToken,
    tasks: TaskTracker,
) {
    let room = Arc::new(Semaphore::new(server.connections));
    while let Some(Ok(place)) = end.run_until_cancelled(room.clone().acquire_owned()).await {
        let (stream, address) = match end.run_until_cancelled(listener.accept()).await {
            Some(Ok(accepted)) => accepted,
            Some(Err(_)) => {
                // out of file descriptors: the listener itself is fine
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => return,
        };
        let session =
            connection(stream, Peer(address.ip()), respond.clone(), server.clone(), end.clone());
        tasks.spawn(async move {
            session.await;
            drop(place);
        });
    }
}

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

/// Closes in two steps (RFC 9112, 9.6): a client that is still sending when its request was refused is to read why, and a
/// connection that is closed with something unread is reset.
async fn linger(mut stream: Pin<Box<TimeoutStream<TcpStream>>>) {
    let farewell = async {
        let _ = stream.shutdown().await;
        let mut unread = vec![0; 16 * 1024];
        while stream.read(&mut unread).await.is_ok_and(|n| n > 0) {}
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
}
