//! The state that all connection workers of a chunk share while the chunk is sent.

use std::{fmt::Display, sync::Arc};

use jiff::Timestamp;

use super::start_right::StartRight;
use crate::{
    config::Config,
    domain::{
        audience::Recipient,
        delivery::{Delivery, Plan},
        ledger::ChunkRef,
        schedule::Wave,
    },
    mail::{smtp::RelayRoute, template::Template},
    send::limits::{BucketRate, MailOut, RoutePermits},
};

/// Messages a second that one connection is expected to carry.
///
/// A chunk with a rate limit opens only as many connections as the limit needs. If the relay is
/// slower than expected, the chunk stays below its limit.
const MESSAGES_A_CONNECTION: f64 = 5.0;

/// The times that all messages of a wave share.
#[derive(Clone, Copy)]
pub(super) struct WaveTime {
    pub wave: Wave,
    /// The `Date` header of the messages.
    pub date: Timestamp,
    /// The end of the validity period, Unix seconds.
    pub valid_until: u32,
}

/// The content of a chunk: everything that its messages are made from.
pub(super) struct ChunkContent {
    pub at: ChunkRef,
    pub delivery: Delivery,
    pub plan: Plan,
    pub template: Arc<Template>,
    /// The recipients, by position.
    pub recipients: Vec<Recipient>,
    pub wave_time: WaveTime,
}

/// The way to the relays that send for the envelope sender.
pub(super) struct ChunkRoute {
    pub envelope_from: String,
    pub relays: RelayRoute,
    pub permits: RoutePermits,
}

/// One run of a chunk: from the first connection to the last record.
pub(super) struct ChunkRun {
    pub content: ChunkContent,
    pub route: ChunkRoute,
    pub right: StartRight,
    pub out: MailOut,
    pub config: Arc<Config>,
}

impl ChunkRun {
    pub(super) fn new(
        content: ChunkContent,
        route: ChunkRoute,
        right: StartRight,
        out: MailOut,
        config: Arc<Config>,
    ) -> Self {
        Self { content, route, right, out, config }
    }

    /// Returns the token buckets that every message of the chunk takes a token from.
    ///
    /// The rate of a relay is among them only if the route has no other relay.
    pub(super) fn rates(&self) -> Vec<BucketRate> {
        let content = &self.content;
        let of_delivery = content
            .plan
            .settings
            .messages_per_second
            .map(|rate| (format!("delivery:{{{}}}", content.at.delivery), rate));
        let only_relay = self.out.relays.only_rate(&self.route.relays);
        let of_relay = only_relay.map(|(name, rate)| (format!("relay:{name}"), rate));
        of_delivery.into_iter().chain(of_relay).collect()
    }

    /// Returns how many connections the chunk opens for this many recipients.
    pub(super) fn connections(&self, rates: &[BucketRate], recipients: usize) -> usize {
        let needed = rates
            .iter()
            .map(|(_, rate)| (rate / MESSAGES_A_CONNECTION).ceil() as usize)
            .min()
            .unwrap_or(usize::MAX);
        let windows = recipients.div_ceil(self.config.send.claim_window);
        self.out.relays.connections(&self.route.relays).min(windows).min(needed.max(1))
    }

    /// Logs a fault of a relay, for debugging: the relay itself logs when its outage begins and
    /// ends.
    pub(super) fn log_relay_fault(&self, fault: impl Display) {
        let at = &self.content.at;
        tracing::debug!(
            delivery.id = %at.delivery,
            chunk = at.chunk,
            %fault,
            "the relay is at fault"
        );
    }
}
