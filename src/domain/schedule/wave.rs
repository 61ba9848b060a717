//! Waves: the recipients of a delivery that share one due time, and their chunks.
//!
//! A preparation writes two packed tables, one of waves and one of chunks. All numbers are
//! big-endian, and all times are Unix seconds.

use serde::{Deserialize, Serialize};

/// The size of a wave in the table of waves.
pub const WAVE_BYTES: usize = 16;
/// The size of a chunk in the table of chunks.
pub const PLACE_BYTES: usize = 4;

/// The state of a wave. The numbers are stored: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveState {
    /// It waits for its due time.
    Waiting,
    /// It may be sent, but perhaps not all of its chunks are open yet.
    Released,
    /// It may be sent, and all of its chunks are open.
    Open,
    /// It was overdue, and waits for a person.
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

    /// Whether the wave may be sent.
    pub fn is_released(self) -> bool {
        matches!(self, Self::Released | Self::Open)
    }
}

/// Whether `due` is more than `grace_s` seconds before `now`. A `due` of 0 means at once, and is
/// never overdue.
pub fn is_overdue(due: u32, now: u32, grace_s: u32) -> bool {
    due > 0 && now.saturating_sub(due) > grace_s
}

/// One wave. In the table: `due` u32, `released_at` u32, `recipients` u32, `state` u8, three zero
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wave {
    /// 0: at once.
    pub due: u32,
    /// 0: not released yet.
    pub released_at: u32,
    pub recipients: u32,
    pub state: WaveState,
}

/// One chunk. In the table: `wave` u16, `recipients` u16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The number of the wave, from 0.
    pub wave: u16,
    pub recipients: u16,
}

impl Wave {
    /// A wave that waits for its due time.
    pub fn waiting(due: u32, recipients: u32) -> Self {
        Self { due, released_at: 0, recipients, state: WaveState::Waiting }
    }

    /// The wave as it is in the table.
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

    /// Whether the wave still waits although it was due more than `grace_s` seconds ago. The script
    /// `release_waves.lua` has the same rule.
    pub fn is_overdue(&self, now: u32, grace_s: u32) -> bool {
        self.state == WaveState::Waiting && is_overdue(self.due, now, grace_s)
    }

    /// Whether the wave waits for a person.
    pub fn is_held(&self) -> bool {
        self.state == WaveState::Held
    }

    /// When retries end: `validity_hours` after the release. `None` if it is not released yet.
    pub fn valid_until(&self, validity_hours: f64) -> Option<u32> {
        let seconds = (validity_hours * 3600.0).round().min(f64::from(u32::MAX)) as u32;
        self.state.is_released().then(|| self.released_at.saturating_add(seconds.max(1)))
    }
}

impl ChunkPlace {
    /// The chunk as it is in the table.
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
        assert_eq!(wave.valid_until(0.0001), Some(1001), "at least a second");
        assert_eq!(Wave::waiting(900, 1).valid_until(1.0), None);
    }
}
