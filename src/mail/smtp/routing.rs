//! Routing: which relays send for a sender, in which shares, and which one replaces a faulty one.
//!
//! The choice is made for a connection, never for a message. A transaction stays with its
//! connection, even if the relay fails.

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

/// All configured relays. All clones share them.
#[derive(Clone)]
pub struct Relays(Arc<RelayGroup>);

struct RelayGroup {
    members: Vec<RelayMember>,
    /// The credit of each member by its weight (smooth weighted round robin).
    credits: Mutex<Vec<i64>>,
    /// Notified when a connection of any relay is given back.
    freed: Arc<Notify>,
}

struct RelayMember {
    relay: Relay,
    /// 0: used only if no other relay of the route is healthy.
    weight: u32,
    /// The most connections of this daemon, as configured.
    connections: usize,
    /// Empty: for all senders whose domain no relay names.
    masks: Vec<SenderMask>,
}

/// The relays that send for a sender, by their numbers. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelayRoute(Vec<usize>);

enum RelayChoice {
    /// A relay, with a slot for a connection.
    Taken(usize, ConnectionSlot),
    /// Each relay that may be chosen has its share of connections in use, or no free slot.
    Full,
    /// No relay is healthy.
    AllAtFault,
}

impl Relays {
    /// Checks the settings, and reads the files that they name. Opens no connection.
    ///
    /// # Errors
    ///
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
                relay: Relay::with_notify(settings, Arc::clone(&freed)).map_err(named)?,
                weight: settings.weight,
                connections: settings.connections,
                masks: SenderMask::all(&settings.sender_domains).map_err(named)?,
            });
        }
        let credits = Mutex::new(vec![0; members.len()]);
        Ok(Self(Arc::new(RelayGroup { members, credits, freed })))
    }

    /// Takes the limits in messages per second of a reload, by the names of the relays.
    pub fn reload_rates(&self, config: &Config) {
        for (_, settings) in config.relays() {
            let named = self.0.members.iter().filter(|m| m.relay.name() == settings.name);
            named.for_each(|member| member.relay.set_rate(settings.messages_per_second));
        }
    }

    /// The relays that name the sender's domain. If none does, the relays that name no domain.
    ///
    /// `None` if no relay sends for the sender.
    pub fn route(&self, sender: &str) -> Option<RelayRoute> {
        let domain = domain_of(sender);
        let members_where = |admits: &dyn Fn(&RelayMember) -> bool| -> Vec<usize> {
            let members = self.0.members.iter().enumerate();
            members.filter(|(_, member)| admits(member)).map(|(i, _)| i).collect()
        };
        let named = members_where(&|member| member.masks.iter().any(|mask| mask.admits(&domain)));
        let route = match named.is_empty() {
            true => members_where(&|member| member.masks.is_empty()),
            false => named,
        };
        (!route.is_empty()).then_some(RelayRoute(route))
    }

    /// The most connections of a route, as configured.
    pub fn connections(&self, route: &RelayRoute) -> usize {
        route.0.iter().map(|i| self.0.members[*i].connections).sum()
    }

    /// How many connections of a route this daemon may use now.
    pub fn allowed(&self, route: &RelayRoute) -> usize {
        route.0.iter().map(|i| self.0.members[*i].relay.allowed()).sum()
    }

    /// The name and the limit in messages per second, if the route is a single relay with a limit.
    pub fn only_rate(&self, route: &RelayRoute) -> Option<(&str, f64)> {
        match route.0[..] {
            [only] => self.0.members[only].relay.rate(),
            _ => None,
        }
    }

    /// The most connections of all relays, as configured.
    pub fn all_connections(&self) -> usize {
        self.0.members.iter().map(|member| member.connections).sum()
    }

    /// Every relay, in the order of the settings.
    pub fn all(&self) -> impl Iterator<Item = &Relay> {
        self.0.members.iter().map(|member| &member.relay)
    }

    /// Positive replies to the end of data, from all relays.
    pub fn accepted(&self) -> u64 {
        self.all().map(|relay| relay.stats().accepted.load(Ordering::Relaxed)).sum()
    }

    /// A connection to one of the relays of a route, ready for a transaction.
    ///
    /// If the chosen relay is at fault, the next one is tried. Waits while all connections are in
    /// use, and while all relays are backing off. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The fault of one relay, if all are at fault.
    pub async fn connection(&self, route: &RelayRoute) -> Result<SmtpConnection, RelayFault> {
        if let [only] = route.0[..] {
            return self.0.members[only].relay.connection().await;
        }
        let mut left = route.0.clone();
        loop {
            // From here on, each connection that is given back wakes this caller.
            let mut freed = pin!(self.0.freed.notified());
            freed.as_mut().enable();
            match self.choose(&left) {
                RelayChoice::Full => freed.await,
                RelayChoice::Taken(chosen, slot) => {
                    match self.0.members[chosen].relay.connection_with(slot).await {
                        Err(_) if left.len() > 1 => left.retain(|i| *i != chosen),
                        ended => return ended,
                    }
                }
                RelayChoice::AllAtFault => return self.first_to_recover(&left).await,
            }
        }
    }

    /// Waits for all relays at once, and takes the first connection.
    ///
    /// Each relay waits for its own back-off. A failed attempt counts for all callers that wait for
    /// the same relay.
    async fn first_to_recover(&self, left: &[usize]) -> Result<SmtpConnection, RelayFault> {
        let attempts = left.iter().map(|i| Box::pin(self.0.members[*i].relay.connection()));
        select_ok(attempts).await.map(|(connection, _)| connection)
    }

    /// Chooses a healthy relay among `left` that is below its share. Relays of weight 0 are chosen
    /// only if no other one is healthy.
    fn choose(&self, left: &[usize]) -> RelayChoice {
        // The lock lets one caller choose at a time: the choice depends on connections in use.
        let mut credits = self.0.credits.lock().unwrap_or_else(PoisonError::into_inner);
        let (healthy, at_fault): (Vec<usize>, Vec<usize>) =
            left.iter().partition(|i| !self.0.members[**i].relay.is_at_fault());
        let has_weight = |i: &usize| self.0.members[*i].weight > 0;
        let weighted: Vec<usize> = healthy.iter().copied().filter(has_weight).collect();
        let candidates = if weighted.is_empty() { healthy } else { weighted };
        if candidates.is_empty() {
            return RelayChoice::AllAtFault;
        }
        at_fault.iter().filter(|i| has_weight(i)).for_each(|i| self.0.members[*i].relay.probe());
        let shares = shares(
            &candidates
                .iter()
                .map(|i| (self.0.members[*i].connections, self.weight(*i)))
                .collect::<Vec<_>>(),
        );
        let has_room = |i: usize, share: usize| {
            let relay = &self.0.members[i].relay;
            relay.in_use() < share && relay.has_free()
        };
        let with_room = candidates.iter().zip(shares).filter(|(i, share)| has_room(**i, *share));
        let with_room: Vec<usize> = with_room.map(|(i, _)| *i).collect();
        for i in &with_room {
            credits[*i] += i64::from(self.weight(*i));
        }
        let Some(chosen) =
            with_room.iter().copied().max_by_key(|i| (credits[*i], std::cmp::Reverse(*i)))
        else {
            return RelayChoice::Full;
        };
        credits[chosen] -= with_room.iter().map(|i| i64::from(self.weight(*i))).sum::<i64>();
        match self.0.members[chosen].relay.try_slot() {
            Some(slot) => RelayChoice::Taken(chosen, slot),
            None => RelayChoice::Full,
        }
    }

    /// The weight for the division. Relays of weight 0 share alike among themselves.
    fn weight(&self, i: usize) -> u32 {
        self.0.members[i].weight.max(1)
    }

    /// Closes all relays, see [`Relay::close`].
    pub async fn close(&self) {
        join_all(self.all().map(Relay::close)).await;
    }
}

/// How many connections of each relay may be in use: in proportion to the weights, at least one.
///
/// Each relay is given by its connections and its weight. Without these shares, busy relays would
/// divide the mail by their connections, not by their weights.
fn shares(relays: &[(usize, u32)]) -> Vec<usize> {
    let wide = |(connections, weight): (usize, u32)| (connections as u64, u64::from(weight));
    // The relay with the fewest connections for its weight uses all of them.
    let scarcest =
        relays.iter().copied().map(wide).reduce(|a, b| if a.0 * b.1 <= b.0 * a.1 { a } else { b });
    let (connections, weight) = scarcest.unwrap_or((1, 1));
    let share = |relay| (wide(relay).1 * connections + weight / 2) / weight;
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
        let relays_of =
            |text: String| Relays::new(&Config::from_toml(&text).expect("good settings"));
        let all = [
            relay("a", ""),
            relay("b", "\"shop.example\", \"*.müller.example\""),
            relay("c", "\"SHOP.example\""),
            relay("d", ""),
        ];
        let relays = relays_of(all.concat()).expect("relays");
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
        let narrow = relays_of(relay("a", "\"shop.example\"")).expect("a relay");
        assert_eq!(narrow.route("news@other.example"), None);
        let bad = relays_of([relay("a", ""), relay("b", "\"shop.example\", \"*\"")].concat())
            .err()
            .expect("an error");
        assert_eq!(bad.setting, "relays[1].sender_domains[1]");
    }
}
