//! The gate of a chunk: which of its recipients may be claimed now, and which are to wait.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    error_rate::ErrorBound,
    throttles::{Throttles, locked},
};
use crate::{
    clock::unix_now,
    domain::{audience::Recipient, delivery::DeliveryId, ledger::Status, outcome::FailureReason},
    store::chunks::Report,
};

/// A recipient's domain and the limit that is for it.
struct ChunkDomain {
    name: String,
    limit: Option<usize>,
}

/// A token bucket and how many messages a second it is for.
pub type BucketRate = (String, f64);

/// Tokens that are there so soon are waited for.
const MOMENT: Duration = Duration::from_millis(250);

pub struct Admission {
    throttles: Throttles,
    delivery: DeliveryId,
    rates: Vec<BucketRate>,
    domains: Vec<ChunkDomain>,
    /// Of every position, the index of its domain.
    of: Vec<u16>,
    /// Whether a domain of the chunk has a limit.
    limited: bool,
    /// Recipients that count against a limit, and against which.
    inside: HashMap<u16, usize>,
    /// What was sent away comes again then (Unix seconds).
    not_before: Option<u32>,
    /// When there are tokens again, for what was not sent away.
    wake: Option<Instant>,
}

impl Admission {
    pub fn new(
        throttles: &Throttles,
        delivery: &DeliveryId,
        rates: Vec<BucketRate>,
        recipients: &[Recipient],
    ) -> Self {
        let mut domains: Vec<ChunkDomain> = Vec::new();
        let mut known: HashMap<String, u16> = HashMap::new();
        let of = recipients
            .iter()
            .map(|recipient| {
                let name = recipient
                    .email
                    .rsplit_once('@')
                    .map_or("", |(_, domain)| domain)
                    .to_lowercase();
                *known.entry(name).or_insert_with_key(|name| {
                    domains
                        .push(ChunkDomain { name: name.clone(), limit: throttles.limit_of(name) });
                    u16::try_from(domains.len() - 1).unwrap_or(u16::MAX)
                })
            })
            .collect();
        let limited = domains.iter().any(|domain| domain.limit.is_some());
        Self {
            throttles: throttles.clone(),
            delivery: delivery.clone(),
            rates,
            domains,
            of,
            limited,
            inside: HashMap::new(),
            not_before: None,
            wake: None,
        }
    }

    /// When what was sent away is to come again.
    pub fn not_before(&self) -> Option<u32> {
        self.not_before
    }

    fn domain(&self, position: u16) -> Option<&ChunkDomain> {
        self.domains.get(usize::from(*self.of.get(usize::from(position))?))
    }

    /// Takes up to `n` that may go now out of `todo`; those that must wait for longer than a moment are sent away.
    pub async fn admit(&mut self, todo: &mut VecDeque<u16>, n: usize) -> Vec<u16> {
        let (throttle, now) = (self.throttles.clone(), unix_now());
        if let Some(until) = throttle.delivery_breaker(&self.delivery, now) {
            self.send_away(todo, |_| true, until);
            return Vec::new();
        }
        let mut n = n;
        for (i, (bucket, rate)) in self.rates.iter().enumerate() {
            match throttle.take(bucket, *rate, n as u64).await {
                Ok(tokens) => n = tokens as usize,
                Err(wait) => {
                    for (bucket, _) in &self.rates[..i] {
                        throttle.put_back(bucket, n as u64).await;
                    }
                    match wait <= MOMENT {
                        true => self.wake = Some(Instant::now() + wait),
                        false => self.send_away(todo, |_| true, after(now, wait)),
                    }
                    return Vec::new();
                }
            }
        }
        let admitted = match self.limited || throttle.has_open_domain_breakers() {
            true => self.admit_by_domain(&throttle, todo, n, now).await,
            false => todo.drain(..n.min(todo.len())).collect(),
        };
        for (bucket, _) in self.rates.iter().filter(|_| admitted.len() < n) {
            throttle.put_back(bucket, (n - admitted.len()) as u64).await;
        }
        admitted
    }

    /// Returns when there are tokens again for what waits; never if nothing does.
    pub async fn woken(&mut self) {
        match self.wake {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
        self.wake = None;
    }

    async fn admit_by_domain(
        &mut self,
        throttle: &Throttles,
        todo: &mut VecDeque<u16>,
        n: usize,
        now: u32,
    ) -> Vec<u16> {
        let (mut admitted, mut crowded, mut at) = (Vec::new(), false, 0);
        while admitted.len() < n && at < todo.len() {
            let position = todo[at];
            let Some(ChunkDomain { name, limit }) = self.domain(position) else {
                admitted.extend(todo.remove(at));
                continue;
            };
            let (name, limit) = (name.clone(), *limit);
            if let Some(until) = throttle.domain_breaker(&name, now) {
                self.send_domain_away(todo, |domain| domain.name == name, until);
                continue;
            }
            let Some(limit) = limit else {
                admitted.extend(todo.remove(at));
                continue;
            };
            if !throttle.enter(limit) {
                crowded = true;
                at += 1;
                continue;
            }
            let rate = throttle.state.limits[limit].messages_per_second;
            if rate > 0.0
                && let Err(wait) = throttle
                    .take(&format!("domain:{}", throttle.state.limits[limit].name), rate, 1)
                    .await
            {
                throttle.leave(limit);
                self.send_domain_away(todo, |domain| domain.limit == Some(limit), after(now, wait));
                continue;
            }
            self.inside.insert(position, limit);
            admitted.extend(todo.remove(at));
        }
        if crowded && admitted.is_empty() && self.inside.is_empty() {
            // it is not this chunk that has to end something first
            self.send_away(todo, |_| true, after(now, Duration::from_secs(1)));
        }
        admitted
    }

    fn send_domain_away(
        &mut self,
        todo: &mut VecDeque<u16>,
        which: impl Fn(&ChunkDomain) -> bool,
        until: u32,
    ) {
        let away: Vec<bool> = self.domains.iter().map(which).collect();
        let of = std::mem::take(&mut self.of);
        let is_away = |position: &u16| {
            of.get(usize::from(*position)).is_some_and(|d| away.get(usize::from(*d)) == Some(&true))
        };
        self.send_away(todo, is_away, until);
        self.of = of;
    }

    fn send_away(&mut self, todo: &mut VecDeque<u16>, which: impl Fn(&u16) -> bool, until: u32) {
        todo.retain(|position| !which(position));
        self.not_before = Some(self.not_before.map_or(until, |before| before.min(until)));
    }

    /// A recipient was not claimed after all.
    pub fn not_claimed(&mut self, position: u16) {
        if let Some(limit) = self.inside.remove(&position) {
            self.throttles.leave(limit);
        }
    }

    /// What became of a recipient.
    pub async fn ended(&mut self, report: &Report) {
        self.not_claimed(report.position);
        let Some(status) = report.status.filter(|status| *status != Status::InDoubt) else {
            return;
        };
        let failed = matches!(status, Status::Deferred | Status::Failed);
        let reason = FailureReason::from_code(report.reason).filter(|_| failed);
        // unreachable is the relay, or the way to it
        let throttled = status == Status::Deferred && reason != Some(FailureReason::Unreachable);
        let refused = reason == Some(FailureReason::Refused);
        // greylisting looks like policy, and a later attempt gets through
        let refused_for_good = refused && status == Status::Failed;
        let Some(ChunkDomain { name, .. }) = self.domain(report.position) else { return };
        let (now, settings) = (Instant::now(), &self.throttles.state.breaker);
        let bound = |percent: u32| ErrorBound {
            minimum: settings.minimum,
            share: f64::from(percent) / 100.0,
            window: settings.window(),
        };
        let (domain_share, delivery_share) = {
            let mut tallies = locked(&self.throttles.state.tallies);
            (
                tallies.domain(
                    name,
                    throttled || refused,
                    bound(settings.domain_errors_percent),
                    now,
                ),
                tallies.delivery(
                    &self.delivery,
                    refused_for_good,
                    bound(settings.delivery_refusals_percent),
                    now,
                ),
            )
        };
        if let Some(share) = domain_share {
            self.throttles.open_domain_breaker(name, share).await;
        }
        if let Some(share) = delivery_share {
            self.throttles.open_delivery_breaker(&self.delivery, share).await;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        for limit in self.inside.values() {
            self.throttles.leave(*limit);
        }
    }
}

/// In whole seconds, never early.
fn after(now: u32, wait: Duration) -> u32 {
    now.saturating_add(wait.as_secs_f64().ceil() as u32)
}
