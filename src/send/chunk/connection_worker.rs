//! The connection worker: drives one connection of a chunk, from a granted claim to its report.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};

use super::{
    chunk_run::ChunkRun, granted_claim::GrantedClaim, ready_message::ReadyMessage,
    writer_channel::WriterChannel,
};
use crate::{
    mail::smtp::{Envelope, SmtpConnection},
    send::limits::ConnectionPermit,
    store::chunks::Report,
};

/// How long a message waits for the next envelope, which is pipelined behind its end of data.
const PATIENCE: Duration = Duration::from_millis(4);

/// How often a worker that waits for a connection looks for the end of the claims.
const CLAIMS_CHECK: Duration = Duration::from_millis(20);

impl ChunkRun {
    /// Drives one connection, and another one when it breaks, until `connect` gives none.
    pub(super) async fn drive_connection(self: Arc<Self>, mut channel: WriterChannel) {
        let window = self.config.send.claim_window;
        // a worker claims recipients only after it has a connection
        while let Some((mut connection, _permit)) = self.connect(&channel.granted).await {
            channel.send(None, window);
            let (mut window_left, mut next) = (window, None::<ReadyMessage>);
            // buffers of messages that were sent
            let mut spare_buffers: Vec<Vec<u8>> = Vec::new();
            while window_left > 0 {
                // the message whose envelope is on its way comes first
                let ready = match next.take() {
                    // this message may have waited for minutes
                    Some(ready) => self.check_validity(&ready.claimed).map(|()| ready),
                    None => match channel.granted.recv().await {
                        Some(claimed) => self.make_message(claimed, &mut spare_buffers),
                        None => break,
                    },
                };
                let report = match ready {
                    Ok(mut ready) if connection.is_usable() && !self.right.is_halted() => {
                        let is_test = self.content.plan.settings.smtp_test;
                        let waits = window_left > 1 && connection.takes_next() && !is_test;
                        next = self.make_next(&mut channel, &mut spare_buffers, waits).await;
                        let report = self
                            .attempt(&mut connection, &mut ready, &mut next, &mut channel)
                            .await;
                        spare_buffers.push(ready.message);
                        report
                    }
                    Ok(ready) => ready.claimed.not_started(),
                    Err(report) => report,
                };
                let wanted = usize::from(connection.is_usable());
                window_left -= 1 - wanted;
                channel.send(Some(report), wanted);
            }
            channel.hand_over(connection);
        }
    }

    /// Makes the message of the next claim.
    ///
    /// If `waits` is true, waits briefly for the claim, so that its envelope can be pipelined. An
    /// envelope that travels alone costs a write, a read and a round trip.
    async fn make_next(
        &self,
        channel: &mut WriterChannel,
        spare_buffers: &mut Vec<Vec<u8>>,
        waits: bool,
    ) -> Option<ReadyMessage> {
        let until = Instant::now() + PATIENCE;
        loop {
            let claimed = channel.next_claim(until, waits).await?;
            match self.make_message(claimed, spare_buffers) {
                Ok(ready) => return Some(ready),
                Err(report) => channel.send(Some(report), 1),
            }
        }
    }

    /// Waits for a permit and a connection.
    ///
    /// Returns `None` if all relays are at fault, the chunk is halted, or nothing is left to do.
    async fn connect(
        &self,
        granted: &UnboundedReceiver<GrantedClaim>,
    ) -> Option<(SmtpConnection, ConnectionPermit)> {
        let no_more_claims = async {
            while !granted.is_closed() {
                tokio::time::sleep(CLAIMS_CHECK).await;
            }
        };
        let connected = async {
            let permit = self.route.permits.take(&self.content.at.delivery).await;
            let connection = self.out.relays.connection(&self.route.relays).await;
            connection.map(|connection| (connection, permit))
        };
        tokio::select! {
            biased;
            () = self.right.halted() => None,
            () = no_more_claims => None,
            connected = connected => {
                connected.inspect_err(|fault| self.log_relay_fault(fault)).ok()
            }
        }
    }

    /// Runs one transaction, and returns its report.
    ///
    /// If the chunk is halted meanwhile, the claims that wait behind the transaction are given back
    /// at once: the transaction may take minutes.
    async fn attempt(
        &self,
        connection: &mut SmtpConnection,
        ready: &mut ReadyMessage,
        next: &mut Option<ReadyMessage>,
        channel: &mut WriterChannel,
    ) -> Report {
        let upcoming = next.as_ref().map(|next| next.envelope.clone());
        let mut sending = pin!(self.send(connection, ready, upcoming));
        tokio::select! {
            report = &mut sending => return report,
            () = self.right.halted() => {}
        }
        if let Some(next) = next.take() {
            channel.send(Some(next.claimed.not_started()), 0);
        }
        loop {
            tokio::select! {
                report = &mut sending => return report,
                Some(waiting) = channel.granted.recv() => {
                    channel.send(Some(waiting.not_started()), 0);
                }
            }
        }
    }

    async fn send(
        &self,
        connection: &mut SmtpConnection,
        ready: &mut ReadyMessage,
        next: Option<Arc<Envelope>>,
    ) -> Report {
        let may_start = || self.right.holds();
        // the admission has taken a token already if the route has only one relay
        if let Some((relay, rate)) =
            connection.limit().filter(|_| self.out.relays.only_rate(&self.route.relays).is_none())
        {
            self.out.throttles.wait_for_relay(relay, rate, &may_start).await;
        }
        let transaction = match self.content.plan.settings.smtp_test {
            true => connection.test(&ready.envelope, &may_start).await,
            false => connection.send(&ready.envelope, &mut ready.message, next, &may_start).await,
        };
        self.report_transaction(&ready.claimed, transaction)
    }
}
