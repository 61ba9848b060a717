//! Connection permits: which delivery gets the next connection of a route.
//!
//! The delivery with the fewest permits comes first. A small delivery therefore waits for at most
//! one chunk of a large delivery to end, however many chunks the large one has.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{domain::delivery::DeliveryId, mail::smtp::RelayRoute};

/// The permits of all routes. Cheap to clone.
#[derive(Clone, Default)]
pub struct ConnectionPermits(Arc<Mutex<HashMap<RelayRoute, RoutePermits>>>);

impl ConnectionPermits {
    /// Returns the permits of a route. A new route begins with this many connections.
    pub fn of(&self, route: &RelayRoute, connections: usize) -> RoutePermits {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        routes.entry(route.clone()).or_insert_with(|| RoutePermits::new(connections)).clone()
    }

    /// Sets how many connections each route may use from now on.
    pub(super) fn allow(&self, connections: impl Fn(&RelayRoute) -> usize) {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        routes.iter().for_each(|(route, permits)| permits.allow(connections(route)));
    }
}

/// The permits of one route. Cheap to clone.
#[derive(Clone)]
pub struct RoutePermits(Arc<Mutex<PermitState>>);

struct PermitState {
    /// Free permits and permits in use.
    all: usize,
    /// Below 0 while more permits are in use than the route has now.
    free: isize,
    in_use: HashMap<DeliveryId, usize>,
    waiting: VecDeque<(DeliveryId, oneshot::Sender<ConnectionPermit>)>,
}

/// The right to use one connection, until it is dropped.
pub struct ConnectionPermit {
    permits: RoutePermits,
    delivery: DeliveryId,
}

impl RoutePermits {
    /// Begins with this many free permits.
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Mutex::new(PermitState {
            all: connections,
            free: connections as isize,
            in_use: HashMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    fn allow(&self, connections: usize) {
        let mut state = self.state();
        state.free += connections as isize - state.all as isize;
        state.all = connections;
        self.hand_out(state);
    }

    /// Waits for a permit for a connection of this delivery. Cancel-safe.
    pub async fn take(&self, delivery: &DeliveryId) -> ConnectionPermit {
        loop {
            let waiting = {
                let mut state = self.state();
                if state.free > 0 && state.waiting.is_empty() {
                    return self.issue(&mut state, delivery.clone());
                }
                let (sender, waiting) = oneshot::channel();
                state.waiting.push_back((delivery.clone(), sender));
                self.hand_out(state);
                waiting
            };
            if let Ok(permit) = waiting.await {
                return permit;
            }
        }
    }

    fn issue(&self, state: &mut PermitState, delivery: DeliveryId) -> ConnectionPermit {
        state.free -= 1;
        *state.in_use.entry(delivery.clone()).or_default() += 1;
        ConnectionPermit { permits: self.clone(), delivery }
    }

    /// Hands free permits to the deliveries that wait.
    ///
    /// The delivery with the fewest permits comes first. Waiters of one delivery keep their order.
    fn hand_out(&self, mut state: MutexGuard<'_, PermitState>) {
        let mut refused = Vec::new();
        while state.free > 0 {
            let in_use = |delivery: &DeliveryId| state.in_use.get(delivery).copied().unwrap_or(0);
            let next = (0..state.waiting.len()).min_by_key(|i| in_use(&state.waiting[*i].0));
            let Some((delivery, waiter)) = next.and_then(|next| state.waiting.remove(next)) else {
                break;
            };
            let permit = self.issue(&mut state, delivery);
            // a dropped permit locks the state: drop it only after the lock is free
            if let Err(permit) = waiter.send(permit) {
                refused.push(permit);
            }
        }
        drop(state);
        drop(refused);
    }

    fn state(&self) -> MutexGuard<'_, PermitState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        state.free += 1;
        if let Some(in_use) = state.in_use.get_mut(&self.delivery) {
            *in_use -= 1;
            if *in_use == 0 {
                state.in_use.remove(&self.delivery);
            }
        }
        state.waiting.retain(|(_, waiter)| !waiter.is_closed());
        self.permits.hand_out(state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn id(n: u8) -> DeliveryId {
        DeliveryId::from_random([n; 10])
    }

    #[tokio::test]
    async fn the_delivery_with_fewest_permits_is_next_and_its_waiters_keep_their_order() {
        let permits = RoutePermits::new(2);
        let (large, small) = (id(1), id(2));
        let mut in_use = vec![permits.take(&large).await, permits.take(&large).await];
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let tasks = tokio_util::task::TaskTracker::new();
        for (n, delivery) in [(0, &large), (1, &large), (2, &small), (3, &small)] {
            let (permits, delivery, told) = (permits.clone(), delivery.clone(), told.clone());
            tasks.spawn(async move {
                let permit = permits.take(&delivery).await;
                told.send((n, permit)).map_err(drop)
            });
            tokio::task::yield_now().await;
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            drop(in_use.remove(0));
            let (n, permit) = timeout(Duration::from_secs(5), heard.recv()).await.unwrap().unwrap();
            order.push(n);
            in_use.push(permit);
        }
        // the small one has none, then each has one, then the one with fewer comes first
        assert_eq!(order[0], 2);
        assert_eq!(order[1..].iter().filter(|n| **n == 0 || **n == 1).count(), 2);
        assert!(order.iter().position(|n| *n == 0) < order.iter().position(|n| *n == 1));
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_keeps_no_permit() {
        let permits = RoutePermits::new(1);
        let first = permits.take(&id(1)).await;
        assert!(timeout(Duration::from_millis(20), permits.take(&id(2))).await.is_err());
        drop(first);
        drop(timeout(Duration::from_secs(5), permits.take(&id(3))).await.unwrap());
        assert_eq!(permits.state().free, 1);
        assert!(permits.state().in_use.is_empty());
    }
}
