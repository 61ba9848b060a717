//! Chunking: sorts recipients into waves, and the recipients of each wave into chunks.

use std::collections::BTreeMap;

use crate::domain::{
    audience::{AddressKey, Recipient},
    schedule::{ChunkPlace, DueTimes, Undated, Wave},
};

/// The most recipients that may wait for their chunks to fill. At that number the largest unfilled
/// chunk is closed early, which bounds the memory of a preparation with many waves.
const MOST_WAITING: usize = 100_000;

/// A recipient with a usable address, and its due instant or the fault in its field.
pub(super) struct DatedRecipient {
    pub(super) recipient: Recipient,
    /// Unix seconds; 0 is at once.
    pub(super) due: Result<u32, Undated>,
    pub(super) address: AddressKey,
}

/// A chunk that gets no more recipients. `addresses` are those of `recipients`, in that order.
pub(super) struct FilledChunk {
    /// Unix seconds; 0 is at once.
    pub(super) due: u32,
    pub(super) recipients: Vec<Recipient>,
    pub(super) addresses: Vec<AddressKey>,
}

/// Deals recipients out to the chunks of their waves.
pub(super) struct Chunker {
    times: DueTimes,
    chunk_size: usize,
    /// By due instant.
    waves: BTreeMap<u32, OpenWave>,
    /// Recipients in unfilled chunks.
    waiting: usize,
    /// Due instant and number of recipients of every closed chunk.
    chunks: Vec<(u32, u16)>,
}

#[derive(Default)]
struct OpenWave {
    recipients: u32,
    waiting: Vec<Recipient>,
    addresses: Vec<AddressKey>,
}

impl Chunker {
    pub(super) fn new(times: DueTimes, chunk_size: usize) -> Self {
        Self { times, chunk_size, waves: BTreeMap::new(), waiting: 0, chunks: Vec::new() }
    }

    /// The due instant of the next recipient, Unix seconds; 0 is at once.
    ///
    /// # Errors
    /// If the field of the recipient cannot be used.
    pub(super) fn due(&mut self, recipient: &Recipient) -> Result<u32, Undated> {
        self.times.due(recipient)
    }

    /// Gives the due instant of an excluded recipient back, so that another one gets it.
    pub(super) fn take_back(&mut self, due: u32) {
        self.times.take_back(due);
    }

    /// Adds a recipient to the unfilled chunk of its wave. Returns the chunk that this closes, if
    /// any.
    pub(super) fn deal(
        &mut self,
        due: u32,
        recipient: Recipient,
        address: AddressKey,
    ) -> Option<FilledChunk> {
        let wave = self.waves.entry(due).or_default();
        wave.recipients += 1;
        wave.waiting.push(recipient);
        wave.addresses.push(address);
        self.waiting += 1;
        let full = match wave.waiting.len() >= self.chunk_size {
            true => Some(due),
            false if self.waiting >= MOST_WAITING => self.largest(),
            false => None,
        };
        full.map(|due| self.close(due))
    }

    /// Closes the unfilled chunks at the end, one at each call.
    pub(super) fn rest(&mut self) -> Option<FilledChunk> {
        let due = self.largest()?;
        Some(self.close(due))
    }

    fn largest(&self) -> Option<u32> {
        let open = self.waves.iter().filter(|(_, wave)| !wave.waiting.is_empty());
        open.max_by_key(|(_, wave)| wave.waiting.len()).map(|(due, _)| *due)
    }

    fn close(&mut self, due: u32) -> FilledChunk {
        let wave = self.waves.entry(due).or_default();
        let (recipients, addresses) =
            (std::mem::take(&mut wave.waiting), std::mem::take(&mut wave.addresses));
        self.waiting -= recipients.len();
        self.chunks.push((due, u16::try_from(recipients.len()).unwrap_or(u16::MAX)));
        FilledChunk { due, recipients, addresses }
    }

    /// Recipients in unfilled chunks.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Waves so far.
    pub(super) fn waves(&self) -> usize {
        self.waves.len()
    }

    /// Closed chunks so far.
    pub(super) fn chunks(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// Due instants of the first and the last wave, Unix seconds.
    pub(super) fn bounds(&self) -> Option<(u32, u32)> {
        Some((*self.waves.keys().next()?, *self.waves.keys().next_back()?))
    }

    /// The table of waves by due instant, and the table of closed chunks.
    pub(super) fn tables(&self) -> (Vec<Wave>, Vec<ChunkPlace>) {
        let waves =
            self.waves.iter().map(|(due, wave)| Wave::waiting(*due, wave.recipients)).collect();
        let number: BTreeMap<u32, u16> = self.waves.keys().copied().zip(0..).collect();
        let place = |(due, recipients): &(u32, u16)| ChunkPlace {
            wave: number[due],
            recipients: *recipients,
        };
        (waves, self.chunks.iter().map(place).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::schedule::Schedule;

    fn recipient(line: u64, when: u32) -> Recipient {
        let at = jiff::Timestamp::from_second(i64::from(when)).unwrap().to_string();
        let fields = json!({ "when": at }).as_object().unwrap().clone();
        Recipient { line, email: format!("r{line}@example.com"), fields }
    }

    fn chunker(chunk_size: usize) -> Chunker {
        Chunker::new(
            Schedule::PerRecipient { field: "when".into() }.due_times().unwrap(),
            chunk_size,
        )
    }

    #[test]
    fn every_recipient_is_in_one_chunk_of_its_own_wave() {
        let (mut chunker, mut chunks) = (chunker(3), Vec::new());
        for line in 0..20 {
            let due = 1000 + line as u32 % 4;
            let recipient = recipient(line, due);
            assert_eq!(chunker.due(&recipient).unwrap(), due);
            chunks.extend(chunker.deal(due, recipient, AddressKey::of(u128::from(line) << 64)));
        }
        assert!(chunks.iter().all(|chunk| chunk.recipients.len() == 3));
        while let Some(chunk) = chunker.rest() {
            chunks.push(chunk);
        }
        let (waves, places) = chunker.tables();
        assert_eq!(
            waves.iter().map(|wave| (wave.due, wave.recipients)).collect::<Vec<_>>(),
            (1000..1004).map(|d| (d, 5)).collect::<Vec<_>>()
        );
        assert_eq!(
            (chunker.waves(), chunker.chunks() as usize, chunker.bounds()),
            (4, chunks.len(), Some((1000, 1003)))
        );
        let mut lines = Vec::new();
        for (chunk, place) in chunks.iter().zip(&places) {
            assert_eq!(waves[usize::from(place.wave)].due, chunk.due);
            assert_eq!(usize::from(place.recipients), chunk.recipients.len());
            assert!(chunk.recipients.iter().all(|r| 1000 + r.line as u32 % 4 == chunk.due));
            assert!(
                chunk
                    .recipients
                    .iter()
                    .map(|r| AddressKey::of(u128::from(r.line) << 64))
                    .eq(chunk.addresses.iter().copied())
            );
            lines.extend(chunk.recipients.iter().map(|r| r.line));
        }
        lines.sort_unstable();
        assert_eq!(lines, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn the_number_of_waiting_recipients_is_bounded_with_many_waves() {
        let mut chunker = chunker(500);
        for line in 0..MOST_WAITING as u64 + 1000 {
            let due = 1000 + (line % 5000) as u32;
            chunker.deal(due, recipient(line, due), AddressKey::of(0));
            assert!(chunker.waiting() < MOST_WAITING);
        }
        assert!(chunker.chunks() > 0);
    }
}
