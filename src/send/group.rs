//! Groups: what the connections of a chunk tell its scribe travels together. While one group is on its way the next one gathers.

use std::collections::VecDeque;

use super::scribe::Scribe;
use crate::{mail::relay::Connection, store::ledgers::Report};

/// Asks of a connection that travel in one group at the most.
const LARGEST_GROUP: usize = 512;

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
}

impl Scribe {
    /// What has been asked for by now.
    pub(super) async fn gather(&mut self, first: Ask, hungry: &mut VecDeque<usize>) -> Group {
        // whoever is ready to ask does so first
        tokio::task::yield_now().await;
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(ask) = next {
            group.reports.extend(ask.report);
            group.used_up.extend(ask.used_up);
            if self.grants.contains_key(&ask.connection) {
                hungry.extend(std::iter::repeat_n(ask.connection, ask.want));
            }
            next = if group.reports.len() < LARGEST_GROUP { self.asks.try_recv().ok() } else { None };
        }
        group
    }
}
