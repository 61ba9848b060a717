//! Durability: whether Redis can lose an acknowledged write, judged by its own settings.

use std::{collections::HashMap, fmt, time::Duration};

/// With `appendfsync everysec` a write is on disk two seconds after its acknowledgement, at the
/// latest (redis.io, persistence).
const EVERYSEC: Duration = Duration::from_secs(2);

/// What Redis promises about acknowledged writes. The guarantees of sending depend on this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// Each write is on disk before it is acknowledged, Redis evicts nothing, and there is no
    /// replica that could take over.
    Strict,
    /// A crash or a fail-over may undo the last writes. Versand notices this: it replays the lost
    /// batches, or puts the recipients in doubt.
    MayRollBack(DurabilityLag),
    /// Acknowledged writes can be lost, for this reason.
    Weak(String),
    /// Redis does not tell: it refuses CONFIG or INFO, for this reason.
    Unknown(String),
}

/// The conditions after which a write can no longer be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurabilityLag {
    /// How long Redis takes to write to its disk.
    pub sync: Duration,
    /// Number of replicas that must have the write, because each of them may become the master.
    pub replicas: u32,
}

impl Durability {
    /// The values of the metric's label.
    pub const WORDS: [&'static str; 4] = ["strict", "goes_back", "weak", "unknown"];

    /// The value of the metric's label.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::MayRollBack(_) => "goes_back",
            Self::Weak(_) => "weak",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The lag until a write is safe, or `None` if waiting is not needed or does not help.
    pub(super) fn lag(&self) -> Option<DurabilityLag> {
        match self {
            Self::MayRollBack(lag) => Some(*lag),
            Self::Unknown(_) => Some(DurabilityLag { sync: EVERYSEC, replicas: 0 }),
            Self::Strict | Self::Weak(_) => None,
        }
    }
}

/// One line that says which guarantees hold.
impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict => {
                f.write_str("Redis keeps every acknowledged write: all guarantees hold")
            }
            Self::MayRollBack(lag) => {
                f.write_str("Redis may lose its last acknowledged writes")?;
                if !lag.sync.is_zero() {
                    f.write_str(", when it crashes (appendfsync everysec)")?;
                }
                if lag.replicas > 0 {
                    write!(f, ", when one of its {} replicas takes over", lag.replicas)?;
                }
                f.write_str(
                    ": the daemon records them again, or the recipients are in doubt; \
                     nobody is sent to twice unnoticed",
                )
            }
            Self::Weak(why) | Self::Unknown(why) => {
                write!(f, "{why}; mails can be lost or sent twice")
            }
        }
    }
}

/// The value of a field of INFO, or "".
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_default()
        .trim()
}

/// Judges the answers to CONFIG GET and INFO replication.
pub(super) fn judge(settings: &HashMap<String, String>, replication: &str) -> Durability {
    let setting = |name: &str| settings.get(name).map_or("", String::as_str);
    let weak = |why: &str| Durability::Weak(why.to_owned());
    if info_field(replication, "role") == "slave" {
        return weak("this Redis is a replica and takes no writes: set redis.url to its master");
    }
    if setting("appendonly") != "yes" {
        return weak(
            "appendonly is not yes: a restart of Redis loses all writes since the last snapshot",
        );
    }
    if setting("no-appendfsync-on-rewrite") == "yes" {
        return weak(
            "no-appendfsync-on-rewrite is yes: a crash during a rewrite loses all writes since the \
             rewrite began",
        );
    }
    if setting("maxmemory") != "0" && setting("maxmemory-policy") != "noeviction" {
        return Durability::Weak(format!(
            "maxmemory-policy is {}: Redis drops keys when its memory is full",
            setting("maxmemory-policy")
        ));
    }
    let sync = match setting("appendfsync") {
        "always" => Duration::ZERO,
        "everysec" => EVERYSEC,
        other => {
            return Durability::Weak(format!(
                "appendfsync is {other}: a crash of the machine loses writes that are not on disk"
            ));
        }
    };
    let lag = DurabilityLag {
        sync,
        replicas: info_field(replication, "connected_slaves").parse().unwrap_or_default(),
    };
    if lag == DurabilityLag::default() { Durability::Strict } else { Durability::MayRollBack(lag) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(changed: &[(&str, &str)], replication: &str) -> Durability {
        let strict = [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("maxmemory-policy", "noeviction"),
            ("maxmemory", "0"),
            ("no-appendfsync-on-rewrite", "no"),
        ];
        let settings = strict
            .iter()
            .chain(changed)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        judge(&settings, replication)
    }

    const ALONE: &str = "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n";

    #[test]
    fn only_a_redis_that_keeps_every_write_is_strict() {
        assert_eq!(judged(&[], ALONE), Durability::Strict);
        assert_eq!(judged(&[("maxmemory-policy", "allkeys-lru")], ALONE), Durability::Strict);
        for weak in [
            judged(&[("appendonly", "no")], ALONE),
            judged(&[("appendfsync", "no")], ALONE),
            judged(&[("maxmemory-policy", "allkeys-lru"), ("maxmemory", "1000000")], ALONE),
            judged(&[("no-appendfsync-on-rewrite", "yes")], ALONE),
            judged(&[], "role:slave\r\nmaster_host:other\r\n"),
        ] {
            assert!(matches!(weak, Durability::Weak(_)), "{weak:?}");
        }
    }

    #[test]
    fn a_lag_of_disk_and_replicas_means_that_redis_may_roll_back() {
        let everysec = judged(&[("appendfsync", "everysec")], ALONE);
        assert_eq!(
            everysec,
            Durability::MayRollBack(DurabilityLag { sync: EVERYSEC, replicas: 0 })
        );
        assert!(
            everysec.to_string().contains("everysec") && everysec.to_string().contains("in doubt")
        );
        let replica = judged(&[], "role:master\r\nconnected_slaves:2\r\n");
        assert_eq!(
            replica,
            Durability::MayRollBack(DurabilityLag { sync: Duration::ZERO, replicas: 2 })
        );
        assert!(replica.to_string().contains("2 replicas"), "{replica}");
    }
}
