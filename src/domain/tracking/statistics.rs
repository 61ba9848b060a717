//! Opens, clicks and opt-outs of a delivery: a pure function of its ledgers and its tracking log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    hit::{Hit, HitClass, HitKind, tracked},
    kpi::rate,
};
use crate::domain::{delivery::Settings, ledger::Status};

/// The figures of a delivery as they were at `computed_at`. Unique figures count recipients; those of recipients whose status is not
/// `sent` stand apart, so that no rate exceeds 1. Rates are null in SMTP test mode and as long as nothing is delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    pub computed_at: Timestamp,
    /// Lines of the tracking log that were read.
    pub hits: u64,
    /// Hits that are in no line of it: those of a recipient that has a thousand already.
    #[serde(default)]
    pub hits_beyond: u64,
    /// How often labels of the log had been changed when it was read.
    #[serde(default)]
    pub labels: u64,
    pub delivered: u64,
    pub failed: u64,
    /// With at least one open, click or mirror page by a human: a click implies an open, an opt-out does not. None if opens are not
    /// tracked.
    pub unique_opens: Option<u64>,
    pub open_rate: Option<f64>,
    /// With at least one click by a human; none if clicks are not tracked.
    pub unique_clicks: Option<u64>,
    pub click_through_rate: Option<f64>,
    /// The raw figures beside them: with any open or click, whoever or whatever it was, or a human's mirror page; with any click.
    pub raw_opens: Option<u64>,
    pub raw_open_rate: Option<f64>,
    pub raw_clicks: Option<u64>,
    pub raw_click_rate: Option<f64>,
    /// By humans.
    pub unique_mirror_pages: u64,
    pub mirror_page_rate: Option<f64>,
    pub unsubscribes: u64,
    pub unsubscribe_rate: Option<f64>,
    /// Among the unique opens: those with a picture fetched through the proxy of Gmail or Yahoo.
    pub proxied_opens: u64,
    /// Recipients whose pictures Apple's proxy fetched, whether they read or not; in no rate.
    pub apple_opens: u64,
    /// Recipients with an open or a click by a machine; in no rate.
    pub machine_opens: u64,
    pub machine_clicks: u64,
    /// Unique opens and clicks of recipients that are not `sent`, such as those that bounced later.
    pub opens_of_others: u64,
    pub clicks_of_others: u64,
    /// All hits, by kind and class.
    pub totals: BTreeMap<HitKind, BTreeMap<HitClass, u64>>,
    /// By the number of the link.
    pub links: Vec<LinkClicks>,
}

/// Clicks on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkClicks {
    /// Recipients of status `sent` with a click by a human.
    pub unique: u64,
    /// All clicks by humans, by others.
    pub human: u64,
    pub machine: u64,
}

/// Gathers the tracking log, line by line; then the ledgers say what counts.
#[derive(Debug)]
pub struct StatisticsCount {
    /// What the log says of each recipient, by number: bits of `tracked`.
    bits: Vec<u8>,
    /// How many hits there were of each.
    counts: Vec<u16>,
    /// Recipient and link of clicks by humans.
    clicks: Vec<(u32, u16)>,
    totals: BTreeMap<HitKind, BTreeMap<HitClass, u64>>,
    links: Vec<LinkClicks>,
    hits: u64,
}

impl StatisticsCount {
    /// `numbers`: one more than the highest number of a recipient.
    pub fn new(numbers: usize, links: usize) -> Self {
        Self {
            bits: vec![0; numbers],
            counts: vec![0; numbers],
            clicks: Vec::new(),
            totals: BTreeMap::new(),
            links: vec![LinkClicks::default(); links],
            hits: 0,
        }
    }

    pub fn note(&mut self, hit: &Hit) {
        self.hits += 1;
        let class = hit.label.class();
        *self.totals.entry(hit.kind).or_default().entry(class).or_default() += 1;
        let number = hit.recipient as usize;
        if let (Some(bits), Some(count)) = (self.bits.get_mut(number), self.counts.get_mut(number))
        {
            *bits |= hit.tracked();
            *count = count.saturating_add(1);
        }
        if hit.kind == HitKind::Click
            && let Some(link) = self.links.get_mut(usize::from(hit.link))
        {
            match class {
                HitClass::Human => {
                    link.human += 1;
                    self.clicks.push((hit.recipient, hit.link));
                }
                _ => link.machine += 1,
            }
        }
    }

    /// What the log says of a recipient, and in how many lines (65535 at the most).
    pub fn of(&self, number: u32) -> (u8, u16) {
        let at = number as usize;
        (
            self.bits.get(at).copied().unwrap_or_default(),
            self.counts.get(at).copied().unwrap_or_default(),
        )
    }

    /// `statuses`: every recipient's, by number.
    pub fn close(
        mut self,
        statuses: &[Option<Status>],
        settings: &Settings,
        now: Timestamp,
    ) -> Statistics {
        let is_sent = |number: usize| statuses.get(number).copied().flatten() == Some(Status::Sent);
        let count = |sent: bool, wanted: u8| {
            let counts =
                |(number, bits): &(usize, &u8)| *bits & wanted != 0 && is_sent(*number) == sent;
            self.bits.iter().enumerate().filter(counts).count() as u64
        };
        self.clicks.sort_unstable();
        self.clicks.dedup();
        for (number, link) in &self.clicks {
            self.links[usize::from(*link)].unique += u64::from(is_sent(*number as usize));
        }
        let with = |status| statuses.iter().filter(|found| **found == Some(status)).count() as u64;
        let (delivered, failed) =
            if settings.smtp_test { (0, 0) } else { (with(Status::Sent), with(Status::Failed)) };
        // unknown is not zero
        let opens = settings.tracking.opens.then(|| count(true, tracked::OPENED));
        let clicks = settings.tracking.clicks.then(|| count(true, tracked::HUMAN_CLICK));
        let raw_opens = settings.tracking.opens.then(|| count(true, tracked::RAW_OPENED));
        let raw_clicks = settings.tracking.clicks.then(|| count(true, tracked::RAW_CLICKED));
        let (mirrors, unsubscribes) =
            (count(true, tracked::HUMAN_MIRROR), count(true, tracked::OPT_OUT));
        Statistics {
            computed_at: now,
            hits: self.hits,
            hits_beyond: 0,
            labels: 0,
            delivered,
            failed,
            unique_opens: opens,
            open_rate: opens.and_then(|opens| rate(opens, delivered)),
            unique_clicks: clicks,
            click_through_rate: clicks.and_then(|clicks| rate(clicks, delivered)),
            raw_opens,
            raw_open_rate: raw_opens.and_then(|opens| rate(opens, delivered)),
            raw_clicks,
            raw_click_rate: raw_clicks.and_then(|clicks| rate(clicks, delivered)),
            unique_mirror_pages: mirrors,
            mirror_page_rate: rate(mirrors, delivered),
            unsubscribes,
            unsubscribe_rate: rate(unsubscribes, delivered),
            proxied_opens: count(true, tracked::PROXIED_OPEN),
            apple_opens: count(true, tracked::APPLE_OPEN),
            machine_opens: count(true, tracked::MACHINE_OPEN),
            machine_clicks: count(true, tracked::MACHINE_CLICK),
            opens_of_others: count(false, tracked::OPENED),
            clicks_of_others: count(false, tracked::HUMAN_CLICK),
            totals: self.totals,
            links: self.links,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::super::hit::{HitLabel, NO_AGENT, NO_LINK};
    use super::*;

    fn settings(smtp_test: bool, tracked: bool) -> Settings {
        let tracking = serde_json::json!({ "url": "", "opens": tracked, "clicks": tracked, "mirror_link": "" });
        let settings = serde_json::json!({
            "in_doubt": "hold", "validity_hours": 1.0, "retry_minutes": [1.0], "message_limit_kib": 1, "grace_minutes": 1.0,
            "request_confirmation": true, "approvals": 1, "smtp_test": smtp_test, "tracking": tracking,
        });
        serde_json::from_value(settings).expect("settings")
    }

    fn hit(recipient: u32, kind: HitKind, label: HitLabel, link: u16) -> Hit {
        let from = IpAddr::from([192, 0, 2, 1]);
        Hit { recipient, at_ms: 0, kind, label, rules: 1, link, signs: 0, agent: NO_AGENT, from }
    }

    #[test]
    fn rates_count_recipients_that_were_sent_to_and_humans_only() {
        use HitKind::{Click, Mirror, Open, OptOut};
        let statuses: Vec<Option<Status>> =
            [Status::Sent; 10].into_iter().chain([Status::Failed]).map(Some).collect();
        let mut reckoning = StatisticsCount::new(statuses.len(), 2);
        for hit in [
            hit(0, Open, HitLabel::Human, NO_LINK),
            hit(0, Open, HitLabel::Human, NO_LINK),
            hit(1, Click, HitLabel::Human, 1),
            hit(1, Click, HitLabel::ProbableScanner, 1),
            hit(1, Click, HitLabel::Human, 0),
            hit(2, Open, HitLabel::AppleProxy, NO_LINK),
            hit(3, Open, HitLabel::Agent, NO_LINK),
            hit(3, Click, HitLabel::Network, 1),
            hit(4, Open, HitLabel::ImageProxy, NO_LINK),
            hit(5, Mirror, HitLabel::Human, NO_LINK),
            hit(6, OptOut, HitLabel::NoAgent, NO_LINK),
            hit(10, Click, HitLabel::Human, 1),
        ] {
            reckoning.note(&hit);
        }
        assert_eq!(reckoning.of(3), (tracked::MACHINE_OPEN | tracked::MACHINE_CLICK, 2));
        let s = reckoning.close(&statuses, &settings(false, true), Timestamp::UNIX_EPOCH);
        assert_eq!((s.hits, s.delivered, s.failed), (12, 10, 1));
        assert_eq!(
            (s.unique_opens, s.unique_clicks, s.unique_mirror_pages, s.unsubscribes),
            (Some(4), Some(1), 1, 1)
        );
        assert_eq!((s.open_rate, s.click_through_rate), (Some(0.4), Some(0.1)));
        assert_eq!(
            (s.raw_opens, s.raw_clicks, s.raw_open_rate, s.raw_click_rate),
            (Some(6), Some(2), Some(0.6), Some(0.2))
        );
        assert_eq!(
            (s.proxied_opens, s.apple_opens, s.machine_opens, s.machine_clicks),
            (1, 1, 1, 1)
        );
        assert_eq!((s.opens_of_others, s.clicks_of_others), (1, 1));
        assert_eq!(s.links[1], LinkClicks { unique: 1, human: 3, machine: 1 });
        assert_eq!(s.totals[&Open][&HitClass::Human], 3);
    }

    #[test]
    fn a_test_has_no_rates() {
        let mut reckoning = StatisticsCount::new(1, 0);
        reckoning.note(&hit(0, HitKind::Open, HitLabel::Human, NO_LINK));
        let s =
            reckoning.close(&[Some(Status::Sent)], &settings(true, true), Timestamp::UNIX_EPOCH);
        assert_eq!((s.delivered, s.open_rate), (0, None));
    }

    #[test]
    fn what_is_not_tracked_is_unknown_and_not_zero() {
        let s = StatisticsCount::new(1, 0).close(
            &[Some(Status::Sent)],
            &settings(false, false),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!((s.delivered, s.unique_opens, s.unique_clicks), (1, None, None));
        assert_eq!((s.open_rate, s.click_through_rate), (None, None));
    }
}
