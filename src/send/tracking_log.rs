//! The tracking log: every open, click, mirror page and opt-out, with who is taken to have done it.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Context, Refusal, logs::Page, statistics::DAMAGED};
use crate::{
    domain::{
        delivery::Delivery,
        id::DeliveryId,
        tracking::{Class, Hit, HitKind, Label, signs},
    },
    store::{StoreError, hits::BLOCK},
};

/// A line of the tracking log; the recipient's address is in the sending log, under the same number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackingLine {
    /// Number of the line, from 0.
    pub line: u64,
    pub recipient: u32,
    pub at: Timestamp,
    pub kind: HitKind,
    pub class: Class,
    pub label: Label,
    /// Whether the class is more than probable.
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

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    pub kind: Option<HitKind>,
    pub class: Option<Class>,
}

impl Context {
    /// One block of the log.
    pub async fn tracking_lines(&self, delivery: &Delivery, block: u64) -> Result<Vec<TrackingLine>, StoreError> {
        let Some(plan) = &delivery.document.plan else { return Ok(Vec::new()) };
        let mut hits = Vec::new();
        for (first, lines) in self.store.hit_blocks(&delivery.id, block..block + 1).await? {
            for (line, bytes) in (first..).zip(lines.as_chunks().0) {
                hits.push((line, Hit::decode(bytes).ok_or_else(|| StoreError::Damaged(DAMAGED.into()))?));
            }
        }
        let (links, agents) = (self.links(delivery, plan).await?, self.store.agents(&delivery.id).await?);
        let line = |(line, hit): (u64, Hit)| {
            let link = links.get(usize::from(hit.link));
            TrackingLine {
                line,
                recipient: hit.recipient,
                at: Timestamp::from_millisecond(hit.at_ms.try_into().unwrap_or_default()).unwrap_or_default(),
                kind: hit.kind,
                class: hit.label.class(),
                label: hit.label,
                certain: hit.label.is_certain(),
                rules: hit.rules,
                link: link.map(|_| hit.link),
                link_label: link.map(|link| link.label.clone()),
                url: link.map(|link| link.url.clone()),
                agent: agents.get(&hit.agent).cloned(),
                address: hit.from,
                head: hit.signs & signs::HEAD != 0,
                prefetch: hit.signs & signs::PREFETCH != 0,
            }
        };
        Ok(hits.into_iter().map(line).collect())
    }

    /// A page of the log from line `from`.
    pub async fn tracking_page(
        &self,
        id: &DeliveryId,
        from: u64,
        limit: usize,
        filter: Filter,
    ) -> Result<Page<TrackingLine>, Refusal> {
        let delivery = self.delivery_with_tracking(id).await?;
        let wanted = |line: &TrackingLine| {
            line.line >= from
                && filter.kind.is_none_or(|kind| line.kind == kind)
                && filter.class.is_none_or(|class| line.class == class)
        };
        let mut items = Vec::new();
        for block in from / BLOCK..self.store.hit_count(id).await?.div_ceil(BLOCK) {
            for line in self.tracking_lines(&delivery, block).await?.into_iter().filter(wanted) {
                if items.len() == limit {
                    return Ok(Page { items, next: Some(line.line) });
                }
                items.push(line);
            }
        }
        Ok(Page { items, next: None })
    }
}
