//! The tracking log: every open, click, mirror page and opt-out, with its class.

use std::{collections::HashMap, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Page;
use crate::{
    deliveries::{Deliveries, Refusal},
    domain::{
        delivery::{Delivery, DeliveryId},
        tracking::{Hit, HitClass, HitKind, HitLabel, TrackedLink, signs},
    },
    store::{
        StoreError,
        audience::AudienceStore,
        tracking::{HITS_PER_BLOCK, TrackingStore},
    },
};

/// A line of the tracking log. The sending log has the e-mail address of the recipient number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackingLogLine {
    /// Number of the line, from 0.
    pub line: u64,
    pub recipient: u32,
    pub at: Timestamp,
    pub kind: HitKind,
    pub class: HitClass,
    pub label: HitLabel,
    /// The class is certain, not only probable.
    pub certain: bool,
    /// Version of the rules that gave the label.
    pub rules: u16,
    pub link: Option<u16>,
    pub link_label: Option<String>,
    pub url: Option<String>,
    pub agent: Option<String>,
    pub address: IpAddr,
    pub head: bool,
    pub prefetch: bool,
}

/// A filter for lines; `None` lets all lines pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrackingFilter {
    pub kind: Option<HitKind>,
    pub class: Option<HitClass>,
    pub label: Option<HitLabel>,
    /// Recipient number.
    pub recipient: Option<u32>,
}

impl TrackingFilter {
    fn passes(self, hit: &Hit) -> bool {
        self.kind.is_none_or(|kind| hit.kind == kind)
            && self.class.is_none_or(|class| hit.label.class() == class)
            && self.label.is_none_or(|label| hit.label == label)
            && self.recipient.is_none_or(|recipient| hit.recipient == recipient)
    }
}

/// Most blocks of the log that are read for one page.
const MOST_BLOCKS: u64 = 64;

/// A tracking log of a fixed length, with the links and user agents that its lines name by number.
#[derive(Debug, Default)]
pub struct TrackingLog {
    /// Lines of the log when it was opened.
    pub lines: u64,
    links: Vec<TrackedLink>,
    agents: HashMap<u16, String>,
}

impl TrackingLog {
    fn line(&self, line: u64, hit: &Hit) -> TrackingLogLine {
        let link = self.links.get(usize::from(hit.link));
        TrackingLogLine {
            line,
            recipient: hit.recipient,
            at: Timestamp::from_millisecond(hit.at_ms.try_into().unwrap_or_default())
                .unwrap_or_default(),
            kind: hit.kind,
            class: hit.label.class(),
            label: hit.label,
            certain: hit.label.is_certain(),
            rules: hit.rules,
            link: link.map(|_| hit.link),
            link_label: link.map(|link| link.label.clone()),
            url: link.map(|link| link.url.clone()),
            agent: self.agents.get(&hit.agent).cloned(),
            address: hit.from,
            head: hit.signs & signs::HEAD != 0,
            prefetch: hit.signs & signs::PREFETCH != 0,
        }
    }
}

/// Reads tracking logs.
#[derive(Clone)]
pub struct TrackingLogs {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub tracking: TrackingStore,
}

impl TrackingLogs {
    /// Opens the log of a delivery; it is empty before the preparation.
    ///
    /// # Errors
    /// If Redis does not answer, or the table of links is damaged.
    pub async fn open(&self, delivery: &Delivery) -> Result<TrackingLog, StoreError> {
        let Some(plan) = &delivery.document.plan else { return Ok(TrackingLog::default()) };
        // the agents are read after the length, so every line finds its agent
        let lines = self.tracking.log_extent(&delivery.id).await?.hits;
        Ok(TrackingLog {
            lines,
            links: self.audiences.links(delivery, plan).await?,
            agents: self.tracking.agents(&delivery.id).await?,
        })
    }

    /// The wanted lines of one block.
    ///
    /// # Errors
    /// If Redis does not answer, or a line is damaged.
    pub async fn lines(
        &self,
        id: &DeliveryId,
        log: &TrackingLog,
        block: u64,
        wanted: impl Fn(u64, &Hit) -> bool,
    ) -> Result<Vec<TrackingLogLine>, StoreError> {
        let mut found = Vec::new();
        for (first, lines) in self.tracking.hit_blocks(id, block..block + 1).await? {
            for (line, bytes) in (first..log.lines).zip(lines.as_chunks().0) {
                let damaged = || StoreError::Damaged("a line of the tracking log".into());
                let hit = Hit::decode(bytes).ok_or_else(damaged)?;
                if wanted(line, &hit) {
                    found.push(log.line(line, &hit));
                }
            }
        }
        Ok(found)
    }

    /// A page from line `from`. With a filter that few lines pass, a page may be short or empty
    /// although another one follows.
    ///
    /// # Errors
    /// If the delivery or its tracking log is gone.
    pub async fn page(
        &self,
        id: &DeliveryId,
        from: u64,
        limit: usize,
        filter: TrackingFilter,
    ) -> Result<Page<TrackingLogLine>, Refusal> {
        let log = self.open(&self.deliveries.delivery_with_tracking(id).await?).await?;
        let wanted = |line: u64, hit: &Hit| line >= from && filter.passes(hit);
        let mut items = Vec::new();
        let blocks = log.lines.div_ceil(HITS_PER_BLOCK);
        let end = blocks.min((from / HITS_PER_BLOCK).saturating_add(MOST_BLOCKS));
        for block in from / HITS_PER_BLOCK..end {
            for line in self.lines(id, &log, block, wanted).await? {
                if items.len() == limit {
                    return Ok(Page { items, next: Some(line.line) });
                }
                items.push(line);
            }
        }
        Ok(Page { items, next: (end < blocks).then_some(end * HITS_PER_BLOCK) })
    }
}
