//! One connection of a listener: HTTP with time-outs, and a farewell in two steps.

use std::{convert::Infallible, future::poll_fn, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    head_check::{check_head, must_close},
    listener_slots::{BusyMark, ListenerSlot},
    listener_tls::ListenerTls,
};
use crate::{config::ServerSettings, http::answer_headers::add_answer_headers};

/// The largest head of a request, in bytes. A larger one is answered with 431.
const HEAD_LIMIT: usize = 16 * 1024;

/// How long a client may go on sending after it was answered.
const LINGER: Duration = Duration::from_secs(2);

/// The address that a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Answers the requests of a listener.
pub trait Respond: Clone + Send + Unpin + 'static {
    /// Answers one request. The connection does not give way while `busy` exists.
    fn respond(
        self,
        peer: Peer,
        busy: BusyMark,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response> + Send;
}

impl Respond for Router {
    async fn respond(self, peer: Peer, busy: BusyMark, mut request: Request<Incoming>) -> Response {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(busy);
        self.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {})
    }
}

/// The method as a metric's label. A client may invent methods, so unknown ones share one label.
pub fn method_label(method: &Method) -> &'static str {
    ["GET", "POST", "PUT", "DELETE"].into_iter().find(|known| method == known).unwrap_or("other")
}

/// Serves one connection, with a time limit for the TLS handshake, for each head, and for each
/// write that makes no progress.
pub async fn serve_connection(
    stream: TcpStream,
    (peer, slot): (Peer, ListenerSlot),
    respond: impl Respond,
    (server, tls): (Arc<ServerSettings>, Option<ListenerTls>),
    end: CancellationToken,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_millis(server.stall_timeout_ms)));
    let stream = Box::pin(stream);
    let Some(tls) = tls else {
        return speak_http(stream, (peer, &slot), respond, &server, &end).await;
    };
    let limit = Duration::from_millis(server.head_timeout_ms);
    tokio::select! {
        secured = tokio::time::timeout(limit, tls.acceptor().accept(stream)) => {
            if let Ok(Ok(stream)) = secured {
                speak_http(stream, (peer, &slot), respond, &server, &end).await;
            }
        }
        () = given_up(&slot, &end) => {}
    }
}

/// Answers one request. If its head cannot be trusted, the answer is a refusal.
async fn answer(
    respond: impl Respond,
    peer: Peer,
    busy: BusyMark,
    request: Request<Incoming>,
) -> Response {
    let (parts, body) = request.into_parts();
    let closes = must_close(&parts);
    let mut response = match check_head(parts.version, &parts.headers) {
        Ok(()) => respond.respond(peer, busy, Request::from_parts(parts, body)).await,
        Err(problem) => {
            let mut refused = problem.into_response();
            add_answer_headers(&mut refused);
            refused
        }
    };
    if closes {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns when the slot was given to another connection, or when the daemon ends.
async fn given_up(slot: &ListenerSlot, end: &CancellationToken) {
    tokio::select! {
        () = end.cancelled() => {}
        () = slot.taken() => {}
    }
}

/// Speaks HTTP until the connection ends or gives way.
async fn speak_http<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    (peer, slot): (Peer, &ListenerSlot),
    respond: impl Respond,
    server: &ServerSettings,
    end: &CancellationToken,
) {
    let service = service_fn(move |request| {
        let (respond, busy) = (respond.clone(), slot.busy());
        Box::pin(async move { Ok::<_, Infallible>(answer(respond, peer, busy, request).await) })
    });
    let mut builder = http1::Builder::new();
    let head_timeout = Duration::from_millis(server.head_timeout_ms);
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_LIMIT);
    let mut served = builder.serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| served.poll_without_shutdown(cx)) => ended,
        () = given_up(slot, end) => {
            if slot.is_idle() && !end.is_cancelled() {
                return;
            }
            std::pin::Pin::new(&mut served).graceful_shutdown();
            poll_fn(|cx| served.poll_without_shutdown(cx)).await
        }
    };
    if ended.is_ok() {
        tokio::select! {
            () = linger(served.into_parts().io.into_inner()) => {}
            () = slot.taken() => {}
        }
    }
}

/// Closes in two steps (RFC 9112, section 9.6).
///
/// A client may still be sending when its request is refused, and must be able to read the answer.
/// Closing a connection with unread input would reset it.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let farewell = async {
        let _ = stream.shutdown().await;
        let mut unread = vec![0; 16 * 1024];
        while stream.read(&mut unread).await.is_ok_and(|n| n > 0) {}
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
}
