//! The steps of tracking: hits, corrections of records, and other labels.

use super::*;

impl Play<'_> {
    pub(super) async fn record(
        &mut self,
        generation: u32,
        random: &[RandomHit],
    ) -> Result<(), String> {
        let mut hits = Vec::new();
        for RandomHit { chunk, position, kind, label, agent } in random {
            self.hits += 1;
            let recipient = (CHUNK + chunk) * CHUNK_SIZE + u32::from(*position);
            let (from, link) = (
                IpAddr::from([192, 0, 2, *position as u8]),
                if self.hits.is_multiple_of(2) { 5 } else { NO_LINK },
            );
            let hit = Hit {
                recipient,
                at_ms: self.hits,
                kind: *kind,
                label: *label,
                rules: 2,
                link,
                signs: 1,
                agent: NO_AGENT,
                from,
            };
            hits.push((hit, *agent));
        }
        self.note_met(generation, &hits);
        let mailing = PreparationRef {
            delivery: self.at.delivery.clone(),
            generation,
            chunk_size: CHUNK_SIZE,
        };
        let real = self.stores.tracking.record_hits(&mailing, &hits, self.terms.now).await.unwrap();
        let Known { chunk, neighbour, tracking, .. } = &mut self.now;
        let before = tracking.beyond;
        same(
            "recorded",
            real,
            tracking.record([chunk, neighbour], generation, &hits, &self.terms),
        )?;
        let (beyond, blocks) = (tracking.beyond > before, tracking.blocks().len());
        self.now.note_neighbour();
        self.met.extend(beyond.then(|| "the limit of a recipient".to_owned()));
        self.met.extend((blocks > 1).then(|| "the next block".to_owned()));
        Ok(())
    }

    fn note_met(&mut self, generation: u32, hits: &[(Hit, &str)]) {
        let tracking = &self.now.tracking;
        let note = match (generation == PLANNED, tracking.swept) {
            (false, _) => "another plan",
            (true, true) => "a log that was removed",
            (true, false) => "a log",
        };
        self.met.insert(note.to_owned());
        let mut proved = BTreeSet::new();
        for (hit, _) in hits.iter().filter(|_| note == "a log") {
            let (chunk, position) = place(hit);
            let chunks = [Some(&self.now.chunk), Some(&self.now.neighbour), None];
            let record =
                chunks[chunk].and_then(|of_chunk| of_chunk.records.get(usize::from(position)));
            let Some(record) = record else {
                self.met.insert("nobody".to_owned());
                continue;
            };
            let class = hit.label.class().word();
            self.met.insert(format!("{} by {class}", record.status.word()));
            if record.status == Status::InDoubt && class == "human" {
                proved.insert(chunk);
            }
        }
        self.met.extend((proved.len() == 2).then(|| "proofs in two chunks".to_owned()));
    }

    /// The basis of the statistics, current or outdated: the revision of the delivery, and how many
    /// labels have changed.
    fn basis(&self, outdated: bool) -> StatisticsBasis {
        let (delivery, labels) = (self.at.delivery.clone(), self.now.tracking.labels);
        let by = u64::from(outdated);
        if self.hits.is_multiple_of(2) {
            StatisticsBasis { delivery, revision: 1 + by, label_changes: labels }
        } else {
            StatisticsBasis { delivery, revision: 1, label_changes: labels + by }
        }
    }

    pub(super) async fn correct_tracked(
        &mut self,
        (chunk, position): (u32, u16),
        (wrong, outdated): (bool, bool),
        bits: u8,
    ) {
        let caches = &mut self.now.tracking.caches[chunk as usize];
        let Some(cache) = caches.get(usize::from(position)).copied() else { return };
        let lines = if wrong { cache.lines ^ 1 } else { cache.lines };
        let basis = self.basis(outdated);
        self.stores
            .tracking
            .correct_tracked(&basis, CHUNK + chunk, &[(position, cache.bits, lines, bits)])
            .await
            .unwrap();
        if !wrong && !outdated {
            self.now.tracking.caches[chunk as usize][usize::from(position)] =
                Cache { bits, ..cache };
            self.now.note_neighbour();
        }
    }

    /// Only lines after the first block get another label: its earlier lines do not exist.
    pub(super) async fn relabel(
        &mut self,
        line: usize,
        (wrong, outdated): (bool, bool),
        label: HitLabel,
    ) -> Result<(), String> {
        let whole = (BLOCK - EARLIER) as usize;
        let lines = self.now.tracking.log.len();
        if lines <= whole {
            return Ok(());
        }
        let line = whole + line % (lines - whole);
        let hit = self.now.tracking.log[line];
        let mut basis = self.basis(outdated);
        let before = Hit { rules: if wrong { 77 } else { hit.rules }, ..hit }.label_bytes();
        let changed = Hit { label, rules: hit.rules + 1, ..hit };
        let change =
            Relabelled { place: EARLIER + line as u64, before, now: changed.label_bytes() };
        same(
            "relabelled",
            self.stores.tracking.relabel(&mut basis, &[change]).await.unwrap(),
            !outdated,
        )?;
        if !outdated {
            self.now.tracking.labels += 1;
        }
        if !outdated && !wrong {
            self.now.tracking.log[line] = changed;
        }
        Ok(())
    }
}
