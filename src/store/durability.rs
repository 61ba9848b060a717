//! What Redis promises: whether a write that it acknowledged can be lost, and how long one waits until it cannot.

use std::{collections::HashMap, fmt, sync::PoisonError, time::Duration};

use super::connection::{Redis, StoreError};
use crate::store::keys;

/// With `appendfsync everysec` what was acknowledged is on disk after two seconds at the latest (redis.io, persistence).
const EVERYSEC: Duration = Duration::from_secs(2);
/// How long one WAIT waits; it is repeated.
const WAIT_MS: u64 = 200;

/// What is known of a Redis' durability, and so which guarantees hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// Every write is on disk before it is acknowledged, nothing is evicted, and there is nobody to fail over to.
    Strict,
    /// A crash or a fail-over may undo the last writes. That is noticed: what may have been sent is put back or in doubt.
    GoesBack(DurabilityLag),
    /// Acknowledged writes can be lost: why.
    Weak(String),
    /// Redis does not say (CONFIG or INFO is not permitted): why.
    Unknown(String),
}

/// After what a write cannot be undone any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurabilityLag {
    pub settle: Duration,
    /// Replicas that must have it: any of them may become the master.
    pub replicas: u32,
}

impl Durability {
    /// The words of the metric.
    pub const WORDS: [&'static str; 4] = ["strict", "goes_back", "weak", "unknown"];

    pub fn word(&self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::GoesBack(_) => "goes_back",
            Self::Weak(_) => "weak",
            Self::Unknown(_) => "unknown",
        }
    }

    fn lag(&self) -> Option<DurabilityLag> {
        match self {
            Self::GoesBack(lag) => Some(*lag),
            Self::Unknown(_) => Some(DurabilityLag { settle: EVERYSEC, replicas: 0 }),
            Self::Strict | Self::Weak(_) => None,
        }
    }
}

/// One line: what it means for the guarantees.
impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict => {
                f.write_str("Redis keeps every write it acknowledges: all guarantees hold")
            }
            Self::GoesBack(lag) => {
                f.write_str("Redis may forget its last writes")?;
                if !lag.settle.is_zero() {
                    f.write_str(" when it crashes (appendfsync everysec)")?;
                }
                if lag.replicas > 0 {
                    write!(f, " when one of its {} replicas takes over", lag.replicas)?;
                }
                f.write_str(
                    ": what was sent then is put back by the daemon that knows, or is in doubt; nobody is silently sent to twice",
                )
            }
            Self::Weak(why) | Self::Unknown(why) => {
                write!(f, "{why}; mails could be lost or doubled")
            }
        }
    }
}

impl Redis {
    /// Asks Redis what it promises; [`Redis::durable`] goes by the last answer.
    pub async fn durability(&self) -> Result<Durability, StoreError> {
        let durability = self.ask_durability().await?;
        *self.promised.write().unwrap_or_else(PoisonError::into_inner) = Some(durability.clone());
        Ok(durability)
    }

    async fn ask_durability(&self) -> Result<Durability, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("CONFIG").arg("GET").arg(&["append*", "no-appendfsync-on-rewrite", "maxmemory*"]);
        pipe.cmd("INFO").arg("replication");
        let asked = pipe.query_async(&mut self.conn.clone()).await;
        let (settings, replication): (HashMap<String, String>, String) = match asked {
            Ok(answer) => answer,
            Err(error) if error.is_connection_dropped() || error.is_timeout() => {
                return Err(error.into());
            }
            Err(error) => return Ok(Durability::Unknown(error.to_string())),
        };
        Ok(judge(&settings, &replication))
    }

    /// Whether the last answer was that Redis may go back in time.
    pub fn may_roll_back(&self) -> bool {
        self.lag().is_some()
    }

    fn lag(&self) -> Option<DurabilityLag> {
        self.promised
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(Durability::lag)
    }

    /// The last answer.
    pub fn promised(&self) -> Option<Durability> {
        self.promised.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when no crash and no fail-over can undo what was acknowledged before.
    pub async fn await_durability(&self) -> Result<(), StoreError> {
        let Some(lag) = self.lag() else { return Ok(()) };
        let (replicated, ()) = tokio::join!(self.replicated(), tokio::time::sleep(lag.settle));
        replicated
    }

    async fn replicated(&self) -> Result<(), StoreError> {
        loop {
            let wanted = self.lag().map_or(0, |lag| lag.replicas);
            if wanted == 0 {
                return Ok(());
            }
            // WAIT counts from the connection's own last write, and holds up what comes behind it
            let mut pipe = redis::pipe();
            pipe.cmd("INCR").arg(keys::DURABLE).ignore().cmd("WAIT").arg(wanted).arg(WAIT_MS);
            let (have,): (u32,) = pipe.query_async(&mut self.beside.clone()).await?;
            if have >= wanted {
                return Ok(());
            }
            // one may have been taken away
            self.durability().await?;
        }
    }

    /// Which run of Redis this is: another one after each start, and of each replica that takes over.
    pub async fn run_id(&self) -> Result<String, StoreError> {
        let info: String =
            redis::cmd("INFO").arg("server").query_async(&mut self.conn.clone()).await?;
        Ok(field(&info, "run_id").to_owned())
    }
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_default()
        .trim()
}

fn judge(settings: &HashMap<String, String>, replication: &str) -> Durability {
    let of = |name: &str| settings.get(name).map_or("", String::as_str);
    let weak = |why: &str| Durability::Weak(why.to_owned());
    if field(replication, "role") == "slave" {
        return weak("it is a replica, which takes no writes: name its master");
    }
    if of("appendonly") != "yes" {
        return weak(
            "appendonly is not yes: a restart of Redis loses what was written since its last snapshot",
        );
    }
    if of("no-appendfsync-on-rewrite") == "yes" {
        return weak(
            "no-appendfsync-on-rewrite is yes: a crash during a rewrite loses what was written since it began",
        );
    }
    if of("maxmemory") != "0" && of("maxmemory-policy") != "noeviction" {
        return Durability::Weak(format!(
            "maxmemory-policy is {}: Redis drops keys when its memory is full",
            of("maxmemory-policy")
        ));
    }
    let settle = match of("appendfsync") {
        "always" => Duration::ZERO,
        "everysec" => EVERYSEC,
        other => {
            return Durability::Weak(format!(
                "appendfsync is {other}: a crash of Redis' machine loses what was not synced"
            ));
        }
    };
    let lag = DurabilityLag {
        settle,
        replicas: field(replication, "connected_slaves").parse().unwrap_or_default(),
    };
    if lag == DurabilityLag::default() { Durability::Strict } else { Durability::GoesBack(lag) }
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
    fn only_a_redis_that_keeps_everything_is_strict() {
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
    fn a_second_that_may_be_lost_and_a_replica_that_may_be_behind_are_waited_for() {
        let everysec = judged(&[("appendfsync", "everysec")], ALONE);
        assert_eq!(everysec, Durability::GoesBack(DurabilityLag { settle: EVERYSEC, replicas: 0 }));
        assert!(
            everysec.to_string().contains("everysec") && everysec.to_string().contains("in doubt")
        );
        let replica = judged(&[], "role:master\r\nconnected_slaves:2\r\n");
        assert_eq!(
            replica,
            Durability::GoesBack(DurabilityLag { settle: Duration::ZERO, replicas: 2 })
        );
        assert!(replica.to_string().contains("2 replicas"), "{replica}");
    }
}
