//! The relays: which of them send for whom, in which shares, and who steps in for one that is at fault.
//!
//! A connection is chosen, never a message: once a transaction has begun it stays where it is, whatever becomes of it.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use futures_util::future::{join_all, select_ok};
use tokio::sync::Notify;

use super::{
    connection::SmtpConnection,
    connection_slots::ConnectionSlot,
    fault::{RelayError, RelayFault},
    relay::Relay,
    sender_mask::{SenderMask, domain_of},
};
use crate::config::Config;

/// Cloneable; all clones share the relays.
#[derive(Clone)]
pub struct Relays(Arc<RelayGroup>);

struct RelayGroup {
    members: Vec<RelayMember>,
    /// What each has coming to it, by its weight (smooth weighted round robin).
    credits: Mutex<Vec<i64>>,
    /// A connection of any relay was given back.
    freed: Arc<Notify>,
}

struct RelayMember {
    relay: Relay,
    /// 0: only where no other one is well.
    weight: u32,
    connections: usize,
    /// None: for all senders.
    masks: Vec<SenderMask>,
}

/// The relays that send for a sender: their numbers, one at least.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelayRoute(Vec<usize>);

enum RelayChoice {
    Taken(usize, ConnectionSlot),
    /// As many connections are in use as may be.
    Full,
    AllAtFault,
}

impl Relays {
    /// Reads the files that the settings name; connects to nothing.
    ///
    /// # Errors
    /// A setting that cannot be used, with its place.
    pub fn new(config: &Config) -> Result<Self, RelayError> {
        let freed = Arc::<Notify>::default();
        let mut members = Vec::new();
        for (at, settings) in config.relays() {
            let named = |error: RelayError| RelayError {
                setting: error.setting.replacen("relay", &at, 1),
                ..error
            };
            members.push(RelayMember {
                relay: Relay::among(settings, Arc::clone(&freed)).map_err(named)?,
                weight: settings.weight,
                connections: settings.connections,
                masks: SenderMask::all(&settings.sender_domains).map_err(named)?,
            });
        }
        let credits = Mutex::new(vec![0; members.len()]);
        Ok(Self(Arc::new(RelayGroup { members, credits, freed })))
    }

    /// The relays that name the sender's domain or, if none does, those that name none. None if there are none of either.
    pub fn route(&self, sender: &str) -> Option<RelayRoute> {
        let domain = domain_of(sender);
        let of = |admits: &dyn Fn(&RelayMember) -> bool| -> Vec<usize> {
            let members = self.0.members.iter().enumerate();
            members.filter(|(_, member)| admits(member)).map(|(i, _)| i).collect()
        };
        let named = of(&|member| member.masks.iter().any(|mask| mask.admits(&domain)));
        let route = if named.is_empty() { of(&|member| member.masks.is_empty()) } else { named };
        (!route.is_empty()).then_some(RelayRoute(route))
    }

    /// Connections that a sender may use at the most.
    pub fn connections(&self, route: &RelayRoute) -> usize {
        route.0.iter().map(|i| self.0.members[*i].connections).sum()
    }

    /// Connections that this daemon may use now.
    pub fn allowed(&self, route: &RelayRoute) -> usize {
        route.0.iter().map(|i| self.0.members[*i].relay.allowed()).sum()
    }

    /// The limit of the only relay of a route, if it has one.
    pub fn only_rate(&self, route: &RelayRoute) -> Option<(&str, f64)> {
        match route.0[..] {
            [only] => self.0.members[only].relay.rate(),
            _ => None,
        }
    }

    pub fn all_connections(&self) -> usize {
        self.0.members.iter().map(|member| member.connections).sum()
    }

    pub fn all(&self) -> impl Iterator<Item = &Relay> {
        self.0.members.iter().map(|member| &member.relay)
    }

    /// Positive replies to the end of data, of all relays.
    pub fn accepted(&self) -> u64 {
        self.all().map(|relay| relay.stats().accepted.load(Ordering::Relaxed)).sum()
    }

    /// A connection that is ready for a transaction, of one of these relays: if the chosen one is at fault, of the next one. Waits
    /// while all are in use, and while all are backing off. Cancel-safe.
    ///
    /// # Errors
    /// The fault of one of them, when all are at fault.
    pub async fn connection(&self, route: &RelayRoute) -> Result<SmtpConnection, RelayFault> {
        if let [only] = route.0[..] {
            return self.0.members[only].relay.connection().await;
        }
        let mut left = route.0.clone();
        loop {
            // from here on nothing that is given back is missed
            let mut freed = pin!(self.0.freed.notified());
            freed.as_mut().enable();
            match self.choose(&left) {
                RelayChoice::Full => freed.await,
                RelayChoice::Taken(chosen, permit) => {
                    match self.0.members[chosen].relay.connection_with(permit).await {
                        Err(_) if left.len() > 1 => left.retain(|i| *i != chosen),
                        ended => return ended,
                    }
                }
                RelayChoice::AllAtFault => return self.first_to_recover(&left).await,
            }
        }
    }

    /// Each waits for as long as it backs off, and what all callers wait for is tried once.
    async fn first_to_recover(&self, left: &[usize]) -> Result<SmtpConnection, RelayFault> {
        let attempts = left.iter().map(|i| Box::pin(self.0.members[*i].relay.connection()));
        select_ok(attempts).await.map(|(connection, _)| connection)
    }

    fn choose(&self, left: &[usize]) -> RelayChoice {
        // one at a time: who is chosen depends on what is in use
        let mut credits = self.0.credits.lock().unwrap_or_else(PoisonError::into_inner);
        let (well, at_fault): (Vec<usize>, Vec<usize>) =
            left.iter().partition(|i| !self.0.members[**i].relay.is_at_fault());
        let weighty = |i: &usize| self.0.members[*i].weight > 0;
        let first: Vec<usize> = well.iter().copied().filter(weighty).collect();
        let tier = if first.is_empty() { well } else { first };
        if tier.is_empty() {
            return RelayChoice::AllAtFault;
        }
        at_fault.iter().filter(|i| weighty(i)).for_each(|i| self.0.members[*i].relay.probe());
        let shares = shares(
            &tier
                .iter()
                .map(|i| (self.0.members[*i].connections, self.weight(*i)))
                .collect::<Vec<_>>(),
        );
        let may = |relay: &Relay, share: usize| relay.in_use() < share && relay.has_free();
        let open =
            tier.iter().zip(shares).filter(|(i, share)| may(&self.0.members[**i].relay, *share));
        let open: Vec<usize> = open.map(|(i, _)| *i).collect();
        for i in &open {
            credits[*i] += i64::from(self.weight(*i));
        }
        let Some(chosen) =
            open.iter().copied().max_by_key(|i| (credits[*i], std::cmp::Reverse(*i)))
        else {
            return RelayChoice::Full;
        };
        credits[chosen] -= open.iter().map(|i| i64::from(self.weight(*i))).sum::<i64>();
        match self.0.members[chosen].relay.permit() {
            Some(permit) => RelayChoice::Taken(chosen, permit),
            None => RelayChoice::Full,
        }
    }

    /// Among those that only step in all are alike.
    fn weight(&self, i: usize) -> u32 {
        self.0.members[i].weight.max(1)
    }

    /// Ends all idle connections with QUIT, see [`Relay::close`].
    pub async fn close(&self) {
        join_all(self.all().map(Relay::close)).await;
    }
}

/// How many connections of each relay may be in use, given its connections and its weight: in proportion of the weights, or else
/// busy relays would share the mail by their connections. One at least.
fn shares(relays: &[(usize, u32)]) -> Vec<usize> {
    let wide = |(connections, weight): (usize, u32)| (connections as u64, u64::from(weight));
    // the one whose connections are the scarcest for its weight has all of them
    let scarcest =
        relays.iter().copied().map(wide).reduce(|a, b| if a.0 * b.1 <= b.0 * a.1 { a } else { b });
    let (most, by) = scarcest.unwrap_or((1, 1));
    let share = |relay| (wide(relay).1 * most + by / 2) / by;
    relays
        .iter()
        .map(|relay| usize::try_from(share(*relay)).unwrap_or(1).clamp(1, relay.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_by_weight() {
        for (relays, expected) in [
            (vec![(20, 1), (20, 1)], vec![20, 20]),
            (vec![(20, 3), (20, 1)], vec![20, 7]),
            (vec![(2, 3), (20, 1)], vec![2, 1]),
            (vec![(20, 1000), (20, 1)], vec![20, 1]),
            (vec![(5, 1), (20, 2), (20, 4)], vec![5, 10, 20]),
            (vec![(7, 9)], vec![7]),
        ] {
            assert_eq!(shares(&relays), expected, "{relays:?}");
        }
    }

    #[test]
    fn a_relay_that_names_the_domain_beats_those_that_name_none() {
        let relay = |name: &str, domains: &str| {
            format!("[[relays]]\nname = \"{name}\"\nhost = \"x\"\nsender_domains = [{domains}]\n")
        };
        let of = |text: String| Relays::new(&Config::from_toml(&text).expect("good settings"));
        let all = [
            relay("a", ""),
            relay("b", "\"shop.example\", \"*.müller.example\""),
            relay("c", "\"SHOP.example\""),
            relay("d", ""),
        ];
        let relays = of(all.concat()).expect("relays");
        for (sender, expected) in [
            ("news@shop.example", vec![1, 2]),
            ("news@Shop.Example", vec![1, 2]),
            ("news@mail.shop.example", vec![0, 3]),
            ("news@a.b.xn--mller-kva.example", vec![1]),
            ("news@a.Müller.example", vec![1]),
            ("news@müller.example", vec![0, 3]),
            ("", vec![0, 3]),
        ] {
            assert_eq!(relays.route(sender), Some(RelayRoute(expected)), "{sender}");
        }
        assert_eq!(relays.connections(&RelayRoute(vec![1, 2])), 40);
        let narrow = of(relay("a", "\"shop.example\"")).expect("a relay");
        assert_eq!(narrow.route("news@other.example"), None);
        let bad = of([relay("a", ""), relay("b", "\"shop.example\", \"*\"")].concat())
            .err()
            .expect("an error");
        assert_eq!(bad.setting, "relays[1].sender_domains[1]");
    }
}
