//! Durability of the connected Redis: asks for it, and waits until a write cannot be undone.

use std::{collections::HashMap, sync::PoisonError};

use super::{
    connection::{Redis, StoreError},
    durability::{Durability, DurabilityLag, info_field, judge},
    keys,
};

/// How long one WAIT command waits, in ms. It is repeated.
const WAIT_MS: u64 = 200;

impl Redis {
    /// Asks Redis for its durability, and keeps the answer for [`Self::await_durability`].
    ///
    /// # Errors
    /// If Redis does not answer. A refusal of CONFIG or INFO is [`Durability::Unknown`].
    pub async fn durability(&self) -> Result<Durability, StoreError> {
        let durability = self.ask_durability().await?;
        *self.last_durability.write().unwrap_or_else(PoisonError::into_inner) =
            Some(durability.clone());
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

    /// Whether Redis may roll back, by the last answer. False after [`Durability::Weak`], and
    /// before the first answer.
    pub fn may_roll_back(&self) -> bool {
        self.lag().is_some()
    }

    fn lag(&self) -> Option<DurabilityLag> {
        self.last_durability
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(Durability::lag)
    }

    /// The last known durability, or `None` before the first question.
    pub fn last_durability(&self) -> Option<Durability> {
        self.last_durability.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until no crash and no fail-over can undo the writes acknowledged so far.
    ///
    /// Returns at once after [`Durability::Strict`], before the first answer, and after
    /// [`Durability::Weak`], where waiting does not help. After [`Durability::Unknown`] the wait
    /// may be too short.
    ///
    /// # Errors
    /// If Redis does not answer. The writes may be undone in that case.
    pub async fn await_durability(&self) -> Result<(), StoreError> {
        let Some(lag) = self.lag() else { return Ok(()) };
        let (replicated, ()) = tokio::join!(self.await_replicas(), tokio::time::sleep(lag.sync));
        replicated
    }

    /// Waits until all replicas have the writes. The number of replicas may change meanwhile.
    async fn await_replicas(&self) -> Result<(), StoreError> {
        loop {
            let wanted = self.lag().map_or(0, |lag| lag.replicas);
            if wanted == 0 {
                return Ok(());
            }
            // WAIT refers to the last write of its own connection, so the pipeline writes first.
            // WAIT also blocks its connection, so it has a connection of its own.
            let mut pipe = redis::pipe();
            pipe.cmd("INCR")
                .arg(keys::REPLICATION_MARK)
                .ignore()
                .cmd("WAIT")
                .arg(wanted)
                .arg(WAIT_MS);
            let (have,): (u32,) = pipe.query_async(&mut self.blocking.clone()).await?;
            if have >= wanted {
                return Ok(());
            }
            // A replica may be gone.
            self.durability().await?;
        }
    }

    /// The id of the current run of Redis. Each start has another one, and so has each replica
    /// that takes over.
    pub async fn run_id(&self) -> Result<String, StoreError> {
        let info: String =
            redis::cmd("INFO").arg("server").query_async(&mut self.conn.clone()).await?;
        Ok(info_field(&info, "run_id").to_owned())
    }
}
