//! Waves: the recipients of a delivery that share one due instant, and which chunks are theirs.

use serde::{Deserialize, Serialize};

/// A wave takes so many bytes in the table of waves.
pub const WAVE_BYTES: usize = 16;
/// A chunk takes so many bytes in the table of chunks.
pub const PLACE_BYTES: usize = 4;

/// What became of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveState {
    Waiting,
    /// It may be sent; its chunks may not have been opened yet.
    Released,
    /// It is sent: its chunks were opened.
    Open,
    /// It was found overdue beyond its grace window and waits for a person.
    Held,
}

impl WaveState {
    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Released,
            2 => Self::Open,
            3 => Self::Held,
            _ => Self::Waiting,
        }
    }

    pub fn is_released(self) -> bool {
        matches!(self, Self::Released | Self::Open)
    }
}

/// Whether an instant lies more than `grace_s` seconds back, all in Unix seconds. 0 means at once,
/// which is never late.
pub fn is_overdue(due: u32, now: u32, grace_s: u32) -> bool {
    due > 0 && now.saturating_sub(due) > grace_s
}

/// A record of the table of waves, big-endian: due u32, released at u32 (0: not yet), recipients u32, state u8, three
/// bytes of nothing. Times are Unix seconds; due 0 is at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wave {
    pub due: u32,
    pub released_at: u32,
    pub recipients: u32,
    pub state: WaveState,
}

/// A record of the table of chunks, big-endian: number of the wave u16, recipients u16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    pub wave: u16,
    pub recipients: u16,
}

impl Wave {
    pub fn waiting(due: u32, recipients: u32) -> Self {
        Self { due, released_at: 0, recipients, state: WaveState::Waiting }
    }

    pub fn bytes(&self) -> [u8; WAVE_BYTES] {
        let mut bytes = [0; WAVE_BYTES];
        bytes[..4].copy_from_slice(&self.due.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.released_at.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.recipients.to_be_bytes());
        bytes[12] = self.state as u8;
        bytes
    }

    fn parse(bytes: &[u8; WAVE_BYTES]) -> Self {
        let number = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            due: number(0),
            released_at: number(4),
            recipients: number(8),
            state: WaveState::from_code(bytes[12]),
        }
    }

    /// All waves of a table.
    pub fn parse_all(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks::<WAVE_BYTES>().0.iter().map(Self::parse).collect()
    }

    /// Whether the wave waits although it was due more than `grace_s` seconds ago.
    /// `release_waves.lua` decides the same in Redis.
    pub fn is_overdue(&self, now: u32, grace_s: u32) -> bool {
        self.state == WaveState::Waiting && is_overdue(self.due, now, grace_s)
    }

    pub fn is_held(&self) -> bool {
        self.state == WaveState::Held
    }

    /// When retries end: so long after the release. None as long as it is not released.
    pub fn valid_until(&self, validity_hours: f64) -> Option<u32> {
        let seconds = (validity_hours * 3600.0).round().min(f64::from(u32::MAX)) as u32;
        self.state.is_released().then(|| self.released_at.saturating_add(seconds.max(1)))
    }
}

impl ChunkPlace {
    pub fn bytes(self) -> [u8; PLACE_BYTES] {
        let ([a, b], [c, d]) = (self.wave.to_be_bytes(), self.recipients.to_be_bytes());
        [a, b, c, d]
    }

    /// All chunks of a table.
    pub fn parse_all(bytes: &[u8]) -> Vec<Self> {
        let place = |b: &[u8; PLACE_BYTES]| Self {
            wave: u16::from_be_bytes([b[0], b[1]]),
            recipients: u16::from_be_bytes([b[2], b[3]]),
        };
        bytes.as_chunks::<PLACE_BYTES>().0.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_as_they_are_written() {
        let states = [WaveState::Waiting, WaveState::Released, WaveState::Open, WaveState::Held];
        let waves = states.map(|state| Wave {
            due: 1_796_000_000,
            released_at: 7,
            recipients: 70_000,
            state,
        });
        assert_eq!(Wave::parse_all(&waves.map(|wave| wave.bytes()).concat()), waves);
        let places =
            [ChunkPlace { wave: 9_999, recipients: 500 }, ChunkPlace { wave: 0, recipients: 1 }];
        assert_eq!(ChunkPlace::parse_all(&places.map(ChunkPlace::bytes).concat()), places);
    }

    #[test]
    fn the_validity_period_begins_with_the_release() {
        let wave = Wave { released_at: 1000, state: WaveState::Open, ..Wave::waiting(900, 1) };
        assert_eq!(wave.valid_until(1.0), Some(4600));
        assert_eq!(wave.valid_until(0.0001), Some(1001), "a second at least");
        assert_eq!(Wave::waiting(900, 1).valid_until(1.0), None);
    }
}
