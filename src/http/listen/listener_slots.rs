//! The slots of a listener: who may hold a connection, and who gives way.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::client_network::ClientNetwork;

/// How long a new connection waits for a slot while requests hold all of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a connection gets no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlot {
    /// Requests hold all slots of its client network.
    OfNetwork,
    /// Requests hold all slots of the listener.
    OfListener,
}

/// The slots of one listener. Cheap to clone.
///
/// A request holds the slot of its connection while it is handled. A connection that no request
/// holds gives way when its network or the listener has no slot left. The network then loses the
/// connection that has been without a request for the longest time. In a full listener, the network
/// with the most connections comes first. Idle connections, slow heads and TLS handshakes therefore
/// keep nobody out.
#[derive(Clone)]
pub struct ListenerSlots(Arc<Shared>);

struct Shared {
    places: Mutex<HashMap<ClientNetwork, Vec<Arc<Place>>>>,
    began: Instant,
    most: usize,
    most_of_network: usize,
    trusted: Vec<IpNet>,
    /// Told whenever a slot is free or a request has ended.
    changed: Notify,
}

/// A connection that has a slot.
struct Place {
    network: ClientNetwork,
    /// The requests of the connection that are being handled.
    requests: AtomicU32,
    /// When the last request ended, or else when the connection was opened: nanoseconds since
    /// `Shared::began`.
    idle_since: AtomicU64,
    gives_way: CancellationToken,
}

impl Place {
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }
}

impl ListenerSlots {
    /// Slots for `most` connections, and for `most_of_network` of each client network that is not
    /// a trusted proxy.
    pub fn new(most: usize, most_of_network: usize, trusted: Vec<IpNet>) -> Self {
        Self(Arc::new(Shared {
            places: Mutex::default(),
            began: Instant::now(),
            most,
            most_of_network,
            trusted,
            changed: Notify::new(),
        }))
    }

    /// Gives a slot to a connection from `ip`. Waits at most a second while requests hold all slots
    /// of the listener.
    ///
    /// # Errors
    /// Requests hold all slots of the client network or of the listener.
    pub async fn admit(&self, ip: IpAddr) -> Result<ListenerSlot, NoSlot> {
        let waiting = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.try_admit(ip) {
                    Err(NoSlot::OfListener) => self.0.changed.notified().await,
                    decided => return decided,
                }
            }
        });
        waiting.await.unwrap_or(Err(NoSlot::OfListener))
    }

    fn try_admit(&self, ip: IpAddr) -> Result<ListenerSlot, NoSlot> {
        let network = ClientNetwork::of(ip);
        let ip = ip.to_canonical();
        let trusted = self.0.trusted.iter().any(|net| net.contains(&ip));
        let mut places = self.0.lock();
        let of_network = places.get(&network).map_or(0, Vec::len);
        if !trusted && of_network >= self.0.most_of_network {
            let victim = places.get(&network).and_then(|own| longest_idle(own)).cloned();
            remove_for_another(&mut places, victim, NoSlot::OfNetwork)?;
        } else if places.values().map(Vec::len).sum::<usize>() >= self.0.most {
            // The network with the most connections gives way first.
            let victim = places
                .values()
                .filter_map(|own| Some((own.len(), longest_idle(own)?)))
                .max_by_key(|(count, idle)| (*count, u64::MAX - idle.since()))
                .map(|(_, idle)| idle.clone());
            remove_for_another(&mut places, victim, NoSlot::OfListener)?;
        }
        let place = Arc::new(Place {
            network,
            requests: AtomicU32::new(0),
            idle_since: AtomicU64::new(self.0.now()),
            gives_way: CancellationToken::new(),
        });
        places.entry(network).or_default().push(place.clone());
        Ok(ListenerSlot { slots: self.clone(), place })
    }
}

fn longest_idle(places: &[Arc<Place>]) -> Option<&Arc<Place>> {
    places.iter().filter(|place| place.is_idle()).min_by_key(|place| place.since())
}

/// Takes the slot from `victim`, whose connection then closes. Without a victim there is no slot.
fn remove_for_another(
    places: &mut HashMap<ClientNetwork, Vec<Arc<Place>>>,
    victim: Option<Arc<Place>>,
    none: NoSlot,
) -> Result<(), NoSlot> {
    let victim = victim.ok_or(none)?;
    remove(places, &victim);
    victim.gives_way.cancel();
    Ok(())
}

fn remove(places: &mut HashMap<ClientNetwork, Vec<Arc<Place>>>, place: &Arc<Place>) {
    let Some(own) = places.get_mut(&place.network) else { return };
    own.retain(|other| !Arc::ptr_eq(other, place));
    if own.is_empty() {
        places.remove(&place.network);
    }
}

impl Place {
    fn since(&self) -> u64 {
        self.idle_since.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientNetwork, Vec<Arc<Place>>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The slot of one connection. It is free again when this is dropped.
pub struct ListenerSlot {
    slots: ListenerSlots,
    place: Arc<Place>,
}

impl ListenerSlot {
    /// Marks the connection as held by a request.
    pub fn busy(&self) -> BusyMark {
        self.place.requests.fetch_add(1, Ordering::AcqRel);
        BusyMark { slots: self.slots.clone(), place: self.place.clone() }
    }

    /// Returns once another connection has got this slot.
    pub async fn taken(&self) {
        self.place.gives_way.cancelled().await;
    }

    /// True while no request holds the connection.
    pub fn is_idle(&self) -> bool {
        self.place.is_idle()
    }
}

impl Drop for ListenerSlot {
    fn drop(&mut self) {
        remove(&mut self.slots.0.lock(), &self.place);
        self.slots.0.changed.notify_one();
    }
}

/// A request that holds its connection. While a mark exists, the connection does not give way.
pub struct BusyMark {
    slots: ListenerSlots,
    place: Arc<Place>,
}

impl Clone for BusyMark {
    fn clone(&self) -> Self {
        self.place.requests.fetch_add(1, Ordering::AcqRel);
        Self { slots: self.slots.clone(), place: self.place.clone() }
    }
}

impl Drop for BusyMark {
    fn drop(&mut self) {
        self.place.idle_since.store(self.slots.0.now(), Ordering::Relaxed);
        if self.place.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.slots.0.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn is_taken(slot: &ListenerSlot) -> bool {
        slot.place.gives_way.is_cancelled()
    }

    #[test]
    fn a_full_network_takes_its_own_longest_idle_connection() {
        let slots = ListenerSlots::new(10, 2, Vec::new());
        let [first, second, other] =
            [ip(1), ip(1), ip(2)].map(|ip| slots.try_admit(ip).expect("a slot"));
        let request = first.busy();
        let third = slots.try_admit(ip(1)).expect("the second gives way");
        assert_eq!([&first, &second, &other, &third].map(is_taken), [false, true, false, false]);
        let _requests = (request, third.busy());
        assert_eq!(slots.try_admit(ip(1)).err(), Some(NoSlot::OfNetwork));
        assert!(slots.try_admit(ip(3)).is_ok());
    }

    #[test]
    fn a_full_listener_takes_an_idle_connection_of_the_largest_network() {
        let slots = ListenerSlots::new(4, 10, Vec::new());
        let all = [ip(9), ip(1), ip(1), ip(1)].map(|ip| slots.try_admit(ip).expect("a slot"));
        let newcomer = slots.try_admit(ip(2)).expect("a slot");
        assert_eq!([0, 1, 2, 3].map(|i| is_taken(&all[i])), [false, true, false, false]);
        let _requests: Vec<_> = all.iter().chain([&newcomer]).map(ListenerSlot::busy).collect();
        assert_eq!(slots.try_admit(ip(3)).err(), Some(NoSlot::OfListener));
    }

    #[test]
    fn a_trusted_proxy_may_hold_all_slots() {
        let slots = ListenerSlots::new(3, 1, vec!["192.0.2.1/32".parse().expect("a network")]);
        let _all = [ip(1), ip(1), ip(1)].map(|ip| slots.try_admit(ip).expect("a slot").busy());
        drop(slots.try_admit(ip(1)));
    }

    #[tokio::test]
    async fn the_end_of_a_request_wakes_who_waits_and_a_closed_connection_frees_its_slot() {
        let slots = ListenerSlots::new(1, 1, Vec::new());
        let first = slots.try_admit(ip(1)).expect("a slot");
        let request = first.busy();
        let (admitted, ()) = tokio::join!(slots.admit(ip(2)), async move { drop(request) });
        assert!(admitted.is_ok() && is_taken(&first));
        drop((admitted, first));
        assert!(slots.0.lock().is_empty());
    }
}
