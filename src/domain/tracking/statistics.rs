//! Statistics: opens, clicks and opt-outs of a delivery, from its ledgers and its tracking log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    hit::{Hit, HitClass, HitKind, tracked},
    rate::rate,
};
use crate::domain::{delivery::Settings, ledger::Status};

/// The figures of a delivery at the time `computed_at`.
///
/// Unique figures count recipients with the status `sent`, so that no rate exceeds 1. Recipients
/// with another status have figures of their own. Rates are null in SMTP test mode, and as long as
/// nothing is delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    pub computed_at: Timestamp,
    /// Lines of the tracking log that were read.
    pub hits: u64,
    /// Hits without a line in the tracking log. After a recipient's thousandth line, only a hit of
    /// a new kind gets one.
    #[serde(default)]
    pub hits_beyond: u64,
    /// How often labels of the log had been changed when the log was read.
    #[serde(default)]
    pub labels: u64,
    pub delivered: u64,
    pub failed: u64,
    /// Recipients with an open, a click or a mirror page by a human. An opt-out does not count.
    /// `None` if opens are not tracked.
    pub unique_opens: Option<u64>,
    pub open_rate: Option<f64>,
    /// Recipients with a click by a human. `None` if clicks are not tracked.
    pub unique_clicks: Option<u64>,
    pub click_through_rate: Option<f64>,
    /// Recipients with any open or click, by a human or not, or with a mirror page by a human.
    pub raw_opens: Option<u64>,
    pub raw_open_rate: Option<f64>,
    /// Recipients with any click, by a human or not.
    pub raw_clicks: Option<u64>,
    pub raw_click_rate: Option<f64>,
    /// Recipients with a mirror page by a human.
    pub unique_mirror_pages: u64,
    pub mirror_page_rate: Option<f64>,
    pub unsubscribes: u64,
    pub unsubscribe_rate: Option<f64>,
    /// Those of the unique opens whose picture the image proxy of Gmail or Yahoo fetched.
    pub proxied_opens: u64,
    /// Recipients whose pictures Apple's proxy fetched. Nobody knows whether they read the mail, so
    /// only the raw open rate counts them.
    pub apple_opens: u64,
    /// Recipients with an open by a machine; only the raw open rate counts them.
    pub machine_opens: u64,
    /// Recipients with a click by a machine; only the raw rates count them.
    pub machine_clicks: u64,
    /// Unique opens of recipients with another status than `sent`, such as after a late bounce.
    pub opens_of_others: u64,
    /// Unique clicks of recipients with another status than `sent`.
    pub clicks_of_others: u64,
    /// The lines of the tracking log that were read, by kind and class.
    pub totals: BTreeMap<HitKind, BTreeMap<HitClass, u64>>,
    /// One for each tracked link, by its number.
    pub links: Vec<LinkClicks>,
}

/// Clicks on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkClicks {
    /// Recipients with the status `sent` and a click by a human.
    pub unique: u64,
    /// All clicks by humans.
    pub human: u64,
    /// All other clicks.
    pub machine: u64,
}

/// Counts the lines of a tracking log. At the end, the status of each recipient decides in which
/// figures the recipient counts.
#[derive(Debug)]
pub struct StatisticsCount {
    /// Bits of `tracked` of each recipient, by recipient number.
    bits: Vec<u8>,
    /// Lines of each recipient, by recipient number.
    counts: Vec<u16>,
    /// Recipient and link of each click by a human.
    clicks: Vec<(u32, u16)>,
    totals: BTreeMap<HitKind, BTreeMap<HitClass, u64>>,
    links: Vec<LinkClicks>,
    hits: u64,
}

impl StatisticsCount {
    /// No line yet. `numbers` is one more than the highest recipient number.
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

    /// Counts one line.
    pub fn add(&mut self, hit: &Hit) {
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

    /// The bits of `tracked` of a recipient, and its number of lines (at most 65535).
    pub fn of(&self, number: u32) -> (u8, u16) {
        let at = number as usize;
        (
            self.bits.get(at).copied().unwrap_or_default(),
            self.counts.get(at).copied().unwrap_or_default(),
        )
    }

    /// Ends the log and computes the figures. `statuses`: the status of each recipient, by number.
    pub fn finish(
        mut self,
        statuses: &[Option<Status>],
        settings: &Settings,
        now: Timestamp,
    ) -> Statistics {
        self.count_unique_link_clicks(statuses);
        let count = |bits: u8| self.recipients_with(bits, statuses, true);
        let count_others = |bits: u8| self.recipients_with(bits, statuses, false);
        let with = |status| statuses.iter().filter(|found| **found == Some(status)).count() as u64;
        let (delivered, failed) =
            if settings.smtp_test { (0, 0) } else { (with(Status::Sent), with(Status::Failed)) };
        // Figures that are not tracked are unknown, and unknown is not zero.
        let tracking = &settings.tracking;
        let unique_opens = tracking.opens.then(|| count(tracked::OPENED));
        let unique_clicks = tracking.clicks.then(|| count(tracked::HUMAN_CLICK));
        let raw_opens = tracking.opens.then(|| count(tracked::RAW_OPENED));
        let raw_clicks = tracking.clicks.then(|| count(tracked::RAW_CLICKED));
        let unique_mirror_pages = count(tracked::HUMAN_MIRROR);
        let unsubscribes = count(tracked::OPT_OUT);
        Statistics {
            computed_at: now,
            hits: self.hits,
            hits_beyond: 0,
            labels: 0,
            delivered,
            failed,
            unique_opens,
            open_rate: unique_opens.and_then(|opens| rate(opens, delivered)),
            unique_clicks,
            click_through_rate: unique_clicks.and_then(|clicks| rate(clicks, delivered)),
            raw_opens,
            raw_open_rate: raw_opens.and_then(|opens| rate(opens, delivered)),
            raw_clicks,
            raw_click_rate: raw_clicks.and_then(|clicks| rate(clicks, delivered)),
            unique_mirror_pages,
            mirror_page_rate: rate(unique_mirror_pages, delivered),
            unsubscribes,
            unsubscribe_rate: rate(unsubscribes, delivered),
            proxied_opens: count(tracked::PROXIED_OPEN),
            apple_opens: count(tracked::APPLE_OPEN),
            machine_opens: count(tracked::MACHINE_OPEN),
            machine_clicks: count(tracked::MACHINE_CLICK),
            opens_of_others: count_others(tracked::OPENED),
            clicks_of_others: count_others(tracked::HUMAN_CLICK),
            totals: self.totals,
            links: self.links,
        }
    }

    /// Recipients with any of `bits`. If `sent` is true, their status is `sent`. Otherwise it is
    /// another one.
    fn recipients_with(&self, bits: u8, statuses: &[Option<Status>], sent: bool) -> u64 {
        let counts = |(number, found): &(usize, &u8)| {
            **found & bits != 0 && is_sent(statuses, *number) == sent
        };
        self.bits.iter().enumerate().filter(counts).count() as u64
    }

    fn count_unique_link_clicks(&mut self, statuses: &[Option<Status>]) {
        self.clicks.sort_unstable();
        self.clicks.dedup();
        for (number, link) in &self.clicks {
            self.links[usize::from(*link)].unique += u64::from(is_sent(statuses, *number as usize));
        }
    }
}

fn is_sent(statuses: &[Option<Status>], number: usize) -> bool {
    statuses.get(number).copied().flatten() == Some(Status::Sent)
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::super::hit::{HitLabel, NO_AGENT, NO_LINK};
    use super::*;

    fn settings(smtp_test: bool, tracked: bool) -> Settings {
        let tracking = serde_json::json!({
            "url": "", "opens": tracked, "clicks": tracked, "mirror_link": ""
        });
        let settings = serde_json::json!({
            "in_doubt": "hold", "validity_hours": 1.0, "retry_minutes": [1.0],
            "message_limit_kib": 1, "grace_minutes": 1.0, "request_confirmation": true,
            "approvals": 1, "smtp_test": smtp_test, "tracking": tracking,
        });
        serde_json::from_value(settings).expect("settings")
    }

    fn hit(recipient: u32, kind: HitKind, label: HitLabel, link: u16) -> Hit {
        let from = IpAddr::from([192, 0, 2, 1]);
        Hit { recipient, at_ms: 0, kind, label, rules: 1, link, signs: 0, agent: NO_AGENT, from }
    }

    #[test]
    fn rates_count_sent_recipients_only_and_raw_rates_count_machines_too() {
        use HitKind::{Click, Mirror, Open, OptOut};
        let statuses: Vec<Option<Status>> =
            [Status::Sent; 10].into_iter().chain([Status::Failed]).map(Some).collect();
        let mut count = StatisticsCount::new(statuses.len(), 2);
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
            count.add(&hit);
        }
        assert_eq!(count.of(3), (tracked::MACHINE_OPEN | tracked::MACHINE_CLICK, 2));
        let s = count.finish(&statuses, &settings(false, true), Timestamp::UNIX_EPOCH);
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
        let mut count = StatisticsCount::new(1, 0);
        count.add(&hit(0, HitKind::Open, HitLabel::Human, NO_LINK));
        let s = count.finish(&[Some(Status::Sent)], &settings(true, true), Timestamp::UNIX_EPOCH);
        assert_eq!((s.delivered, s.open_rate), (0, None));
    }

    #[test]
    fn untracked_figures_are_unknown() {
        let s = StatisticsCount::new(1, 0).finish(
            &[Some(Status::Sent)],
            &settings(false, false),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!((s.delivered, s.unique_opens, s.unique_clicks), (1, None, None));
        assert_eq!((s.open_rate, s.click_through_rate), (None, None));
    }
}
