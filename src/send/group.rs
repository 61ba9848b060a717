//! What the connections of a chunk ask for, gathered into groups: a large one costs little more than a small one.

use std::{collections::VecDeque, time::Duration};

use super::scribe::Scribe;
use crate::{mail::relay::Connection, store::ledgers::Report};

/// Asks of a connection that travel in one group at the most.
const LARGEST_GROUP: usize = 512;
/// So long a group waits for more at the most.
const PATIENCE: Duration = Duration::from_millis(1);

/// What a connection tells the scribe: what became of a claim, and how many more it has room for.
pub struct Ask {
    pub connection: usize,
    pub report: Option<Report>,
    pub want: usize,
    /// A connection that needs nothing more. It counts until all that was claimed for it is recorded, so that a crash leaves
    /// no more in doubt than connections times window.
    pub used_up: Option<Connection>,
}

/// What is written at once.
#[derive(Default)]
pub(super) struct Group {
    pub reports: Vec<Report>,
    pub used_up: Vec<Connection>,
    /// It is not to wait for more.
    presses: bool,
}

impl Scribe {
    /// What is asked for until somebody is short of claims, or patience ends: a large group costs little more than a small one.
    pub(super) async fn gather(&mut self, first: Ask, hungry: &mut VecDeque<usize>) -> Group {
        // whoever is ready to ask does so first
        tokio::task::yield_now().await;
        let mut group = Group::default();
        self.add(first, &mut group, hungry);
        let patience = tokio::time::sleep(PATIENCE);
        let mut patience = std::pin::pin!(patience);
        loop {
            while group.reports.len() < LARGEST_GROUP
                && let Ok(ask) = self.asks.try_recv()
            {
                self.add(ask, &mut group, hungry);
            }
            if group.presses || group.reports.len() >= LARGEST_GROUP || self.todo.is_empty() || self.halt.is_cancelled() {
                return group;
            }
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.add(ask, &mut group, hungry),
                    None => return group,
                },
                () = &mut patience => return group,
            }
        }
    }

    fn add(&self, ask: Ask, group: &mut Group, hungry: &mut VecDeque<usize>) {
        group.reports.extend(ask.report);
        group.presses |= ask.used_up.is_some();
        group.used_up.extend(ask.used_up);
        if self.grants.contains_key(&ask.connection) {
            hungry.extend(std::iter::repeat_n(ask.connection, ask.want));
            // it has gone through half of its window
            let gone = hungry.iter().filter(|hungry| **hungry == ask.connection).count();
            group.presses |= gone >= self.context.config.send.claim_window.div_ceil(2);
        }
    }
}
