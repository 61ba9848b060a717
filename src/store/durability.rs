//! What Redis promises: whether a write that it acknowledged can be lost.

use std::collections::HashMap;

use super::{Store, StoreError};

/// What is known of a Redis' durability. The guarantees against loss and doubles hold with [`Durability::Strict`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// Every write is on disk before it is acknowledged, and nothing is evicted.
    Strict,
    /// Acknowledged writes can be lost: why.
    Weak(String),
    /// Redis does not say (CONFIG is not permitted): why.
    Unknown(String),
}

impl Store {
    /// Asks Redis for `appendonly`, `appendfsync` and `maxmemory-policy`.
    pub async fn durability(&self) -> Result<Durability, StoreError> {
        let asked = redis::cmd("CONFIG")
            .arg("GET")
            .arg(&["appendonly", "appendfsync", "maxmemory-policy", "maxmemory"])
            .query_async(&mut self.conn.clone())
            .await;
        let settings: HashMap<String, String> = match asked {
            Ok(settings) => settings,
            Err(error) if error.is_connection_dropped() || error.is_timeout() => return Err(error.into()),
            Err(error) => return Ok(Durability::Unknown(error.to_string())),
        };
        Ok(judge(&settings))
    }
}

fn judge(settings: &HashMap<String, String>) -> Durability {
    let of = |name: &str| settings.get(name).map_or("", String::as_str);
    if of("appendonly") != "yes" {
        return Durability::Weak(
            "appendonly is not yes: a restart of Redis loses what was written since its last snapshot".into(),
        );
    }
    if of("appendfsync") != "always" {
        return Durability::Weak(format!(
            "appendfsync is {}: a crash of Redis' machine loses the last writes",
            of("appendfsync")
        ));
    }
    if of("maxmemory") != "0" && of("maxmemory-policy") != "noeviction" {
        return Durability::Weak(format!(
            "maxmemory-policy is {}: Redis drops keys when its memory is full",
            of("maxmemory-policy")
        ));
    }
    Durability::Strict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redis_that_keeps_everything_is_strict() {
        let judged = |appendonly, appendfsync, policy, maxmemory| {
            let settings = [
                ("appendonly", appendonly),
                ("appendfsync", appendfsync),
                ("maxmemory-policy", policy),
                ("maxmemory", maxmemory),
            ];
            judge(&settings.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned())).into())
        };
        assert_eq!(judged("yes", "always", "noeviction", "0"), Durability::Strict);
        assert_eq!(judged("yes", "always", "allkeys-lru", "0"), Durability::Strict);
        for weak in [
            judged("no", "always", "noeviction", "0"),
            judged("yes", "everysec", "noeviction", "0"),
            judged("yes", "always", "allkeys-lru", "1000000"),
        ] {
            assert!(matches!(weak, Durability::Weak(_)), "{weak:?}");
        }
    }
}
