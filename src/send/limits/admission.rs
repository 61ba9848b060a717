//! The admission of a chunk: which recipients may be claimed now, and which must wait for a limit.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    chunk_domains::{ChunkDomain, ChunkDomains},
    domain_limits::DomainLimits,
    throttles::Throttles,
};
use crate::{
    clock::unix_now,
    domain::{audience::Recipient, delivery::DeliveryId},
    store::chunks::Report,
};

/// The name of a token bucket, and its rate in messages per second.
pub type BucketRate = (String, f64);

/// The chunk waits for tokens of its `rates` that come within this time. If they come later, or if
/// a domain's limit lacks tokens, recipients are postponed.
const SHORT_WAIT: Duration = Duration::from_millis(250);

/// Decides which recipients of one chunk may be claimed now.
pub struct Admission {
    throttles: Throttles,
    delivery: DeliveryId,
    rates: Vec<BucketRate>,
    domains: ChunkDomains,
    /// The limits of the time when the chunk began. `domains` and `in_flight` name them by index.
    limits: Arc<DomainLimits>,
    /// The limit of each recipient that is admitted and not recorded, by position.
    in_flight: HashMap<u16, usize>,
    /// When postponed recipients may be claimed (Unix seconds).
    not_before: Option<u32>,
    /// When there are tokens again for the recipients that wait here.
    wake_at: Option<Instant>,
}

impl Admission {
    /// Begins with the recipients of a chunk, by position. A message takes a token of each rate.
    pub fn new(
        throttles: &Throttles,
        delivery: &DeliveryId,
        rates: Vec<BucketRate>,
        recipients: &[Recipient],
    ) -> Self {
        let limits = throttles.limits.now();
        Self {
            throttles: throttles.clone(),
            delivery: delivery.clone(),
            rates,
            domains: ChunkDomains::new(&limits, recipients),
            limits,
            in_flight: HashMap::new(),
            not_before: None,
            wake_at: None,
        }
    }

    /// Returns when postponed recipients may be claimed (Unix seconds), if there are any.
    pub fn not_before(&self) -> Option<u32> {
        self.not_before
    }

    /// Removes up to `wanted` positions from `positions` that may be claimed now, and returns them.
    ///
    /// Also removes the positions that must wait for more than a moment: they are postponed.
    pub async fn admit(&mut self, positions: &mut VecDeque<u16>, wanted: usize) -> Vec<u16> {
        let now = unix_now();
        if let Some(until) = self.throttles.delivery_breaker(&self.delivery, now) {
            self.postpone_all(positions, until);
            return Vec::new();
        }
        let tokens = match self.take_tokens(wanted).await {
            Ok(tokens) => tokens,
            Err(wait) if wait <= SHORT_WAIT => {
                self.wake_at = Some(Instant::now() + wait);
                return Vec::new();
            }
            Err(wait) => {
                self.postpone_all(positions, after(now, wait));
                return Vec::new();
            }
        };
        let admitted = if self.domains.has_limits || self.throttles.breakers.has_open_domains() {
            self.admit_by_domain(positions, tokens, now).await
        } else {
            positions.drain(..tokens.min(positions.len())).collect()
        };
        if admitted.len() < tokens {
            self.put_tokens_back(&self.rates, tokens - admitted.len()).await;
        }
        admitted
    }

    /// Takes up to `wanted` tokens from each bucket. Returns how many all buckets have.
    async fn take_tokens(&self, wanted: usize) -> Result<usize, Duration> {
        let mut tokens = wanted;
        for (i, (bucket, rate)) in self.rates.iter().enumerate() {
            match self.throttles.buckets.take(bucket, *rate, tokens as u64).await {
                Ok(taken) => tokens = taken as usize,
                Err(wait) => {
                    self.put_tokens_back(&self.rates[..i], tokens).await;
                    return Err(wait);
                }
            }
        }
        Ok(tokens)
    }

    async fn put_tokens_back(&self, rates: &[BucketRate], tokens: usize) {
        for (bucket, _) in rates {
            self.throttles.buckets.put_back(bucket, tokens as u64).await;
        }
    }

    /// Waits until there are tokens again for the recipients that wait here. Cancel-safe.
    ///
    /// Never returns if no recipient waits here.
    pub async fn woken(&mut self) {
        match self.wake_at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
        self.wake_at = None;
    }

    async fn admit_by_domain(
        &mut self,
        positions: &mut VecDeque<u16>,
        wanted: usize,
        now: u32,
    ) -> Vec<u16> {
        let (mut admitted, mut is_crowded, mut at) = (Vec::new(), false, 0);
        while admitted.len() < wanted && at < positions.len() {
            let position = positions[at];
            let Some(ChunkDomain { name, limit }) = self.domains.of(position) else {
                admitted.extend(positions.remove(at));
                continue;
            };
            let limit = *limit;
            if let Some(until) = self.throttles.breakers.domain_open_until(name, now) {
                let name = name.clone();
                self.postpone_domains(positions, |domain| domain.name == name, until);
                continue;
            }
            let Some(limit) = limit else {
                admitted.extend(positions.remove(at));
                continue;
            };
            if !self.limits.enter(limit) {
                is_crowded = true;
                at += 1;
                continue;
            }
            if let Some((bucket, rate)) = self.limits.rate(limit)
                && let Err(wait) = self.throttles.buckets.take(&bucket, rate, 1).await
            {
                self.limits.leave(limit);
                let until = after(now, wait);
                self.postpone_domains(positions, |domain| domain.limit == Some(limit), until);
                continue;
            }
            self.in_flight.insert(position, limit);
            admitted.extend(positions.remove(at));
        }
        if is_crowded && admitted.is_empty() && self.in_flight.is_empty() {
            // other chunks use up the share: no report of this chunk can make room
            self.postpone_all(positions, after(now, Duration::from_secs(1)));
        }
        admitted
    }

    fn postpone_domains(
        &mut self,
        positions: &mut VecDeque<u16>,
        matches: impl Fn(&ChunkDomain) -> bool,
        until: u32,
    ) {
        self.note_postponed(until);
        let is_postponed = self.domains.positions_where(matches);
        positions.retain(|position| !is_postponed(*position));
    }

    fn postpone_all(&mut self, positions: &mut VecDeque<u16>, until: u32) {
        positions.clear();
        self.note_postponed(until);
    }

    fn note_postponed(&mut self, until: u32) {
        self.not_before = Some(self.not_before.map_or(until, |before| before.min(until)));
    }

    /// Notes that a recipient was admitted but not claimed.
    pub fn note_unclaimed(&mut self, position: u16) {
        if let Some(limit) = self.in_flight.remove(&position) {
            self.limits.leave(limit);
        }
    }

    /// Notes the outcome of a recipient. The outcome may open a circuit breaker.
    pub async fn note_outcome(&mut self, report: &Report) {
        self.note_unclaimed(report.position);
        if let Some(domain) = self.domains.of(report.position) {
            self.throttles.breakers.note_outcome(&self.delivery, &domain.name, report).await;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        for limit in self.in_flight.values() {
            self.limits.leave(*limit);
        }
    }
}

/// The Unix second `wait` after `now`. A part of a second counts as a whole one.
fn after(now: u32, wait: Duration) -> u32 {
    now.saturating_add(wait.as_secs_f64().ceil() as u32)
}
