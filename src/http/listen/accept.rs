//! Accepts the connections of a listener, within the limits of its slots.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    http_connection::{Peer, Respond, serve_connection},
    listener_slots::ListenerSlots,
    listener_tls::ListenerTls,
    turned_away::TurnedAway,
};
use crate::config;

/// How a listener serves.
#[derive(Clone)]
pub struct ListenerOptions {
    /// The limits of the listener.
    pub server: config::ServerSettings,
    /// The proxies that may hold all connections of the listener.
    pub trusted_proxies: Vec<IpNet>,
    /// The TLS of the listener; none for plain HTTP.
    pub tls: Option<ListenerTls>,
}

/// Serves a listener until `end` is cancelled.
///
/// At most `server.connections` connections are open at a time, and at most
/// `server.connections_per_address` of one client network that is no trusted proxy. A further
/// connection takes the slot of one that no request holds. If requests hold all slots, the
/// connection is answered with 429 or 503, or closed without an answer (`turned_away`).
pub async fn serve(
    listener: TcpListener,
    respond: impl Respond,
    options: ListenerOptions,
    end: CancellationToken,
    tasks: TaskTracker,
) {
    let ListenerOptions { server, trusted_proxies, tls } = options;
    let slots =
        ListenerSlots::new(server.connections, server.connections_per_address, trusted_proxies);
    let turned_away = TurnedAway::new(tls.is_none());
    let server = Arc::new(server);
    loop {
        let (stream, address) = match end.run_until_cancelled(listener.accept()).await {
            Some(Ok(accepted)) => accepted,
            Some(Err(_)) => {
                // The process may be out of file descriptors; the listener itself is fine.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => return,
        };
        let slot = match end.run_until_cancelled(slots.admit(address.ip())).await {
            Some(Ok(slot)) => slot,
            Some(Err(why)) => {
                turned_away.answer(stream, why, &tasks);
                continue;
            }
            None => return,
        };
        tasks.spawn(serve_connection(
            stream,
            (Peer(address.ip()), slot),
            respond.clone(),
            (server.clone(), tls.clone()),
            end.clone(),
        ));
    }
}
