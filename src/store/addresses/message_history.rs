//! The history of an address: all messages to it, with their records and waves.

use super::{
    address_store::AddressStore,
    message_index::IndexedMessage,
    preparation_registry::{RegisteredPreparation, counting_state},
};
use crate::domain::ledger::RecipientNumber;
use crate::{
    domain::{
        audience::AddressKey,
        ledger::{HEADER_BYTES, RECORD_BYTES, Record, Status},
        schedule::{ChunkPlace, PLACE_BYTES, WAVE_BYTES, Wave},
    },
    store::{StoreError, audience::SliceKind, damaged, keys},
};

/// A message that an address got, or will get.
#[derive(Debug, Clone)]
pub struct MessageTrace {
    pub preparation: RegisteredPreparation,
    /// The recipient number.
    pub recipient: u32,
    /// The record in the ledger. Without a ledger there is none, and the recipient is pending.
    pub record: Option<Record>,
    /// The wave of a pending recipient.
    pub wave: Option<Wave>,
}

impl MessageTrace {
    fn is_pending(&self) -> bool {
        self.record.is_none_or(|record| record.status == Status::Pending)
    }
}

impl AddressStore {
    /// The messages to an address, in no order. Leaves out deliveries that were not confirmed, and
    /// deleted ones. Takes at most five round trips, however many messages there are.
    pub async fn history(&self, address: AddressKey) -> Result<Vec<MessageTrace>, StoreError> {
        let messages = self.messages_to(&[address]).await?.pop().unwrap_or_default();
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<u32> = messages.iter().map(|message| message.preparation).collect();
        let texts: Vec<Option<String>> = redis::cmd("HMGET")
            .arg(keys::PREPARATIONS)
            .arg(numbers)
            .query_async(&mut self.redis.connection())
            .await?;
        let mut traces = Vec::with_capacity(messages.len());
        for (IndexedMessage { recipient, .. }, text) in messages.iter().zip(&texts) {
            if let Some(preparation) =
                text.as_ref().map(|text| RegisteredPreparation::parse(text)).transpose()?
            {
                traces.push(MessageTrace {
                    preparation,
                    recipient: *recipient,
                    record: None,
                    wave: None,
                });
            }
        }
        self.find_records(&mut traces).await?;
        self.find_waves(&mut traces).await?;
        Ok(traces)
    }

    /// Reads the records of the messages, and drops messages that do not count.
    async fn find_records(&self, traces: &mut Vec<MessageTrace>) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        for MessageTrace { preparation, recipient, .. } in traces.iter() {
            let id = &preparation.delivery;
            let (chunk, position) = place(preparation, *recipient)?;
            let from = HEADER_BYTES + RECORD_BYTES * position;
            pipe.cmd("HMGET").arg(keys::delivery(id)).arg(&["state", "planned"]);
            pipe.cmd("GETRANGE")
                .arg(keys::ledger(id, chunk))
                .arg(from)
                .arg(from + RECORD_BYTES - 1);
        }
        type Answers = Vec<redis::Value>;
        let answers: Answers = if traces.is_empty() {
            Vec::new()
        } else {
            pipe.query_async(&mut self.redis.connection()).await?
        };
        let mut found = Vec::with_capacity(traces.len());
        for (trace, answer) in traces.drain(..).zip(answers.as_chunks::<2>().0) {
            let [head, raw] = answer;
            if counting_state(head, trace.preparation.generation)?.is_some() {
                let raw: Vec<u8> = redis::from_redis_value_ref(raw).map_err(damaged)?;
                found.push(MessageTrace { record: Record::parse(&raw), ..trace });
            }
        }
        *traces = found;
        Ok(())
    }

    /// Reads the waves of the pending messages.
    async fn find_waves(&self, traces: &mut [MessageTrace]) -> Result<(), StoreError> {
        let mut pending: Vec<&mut MessageTrace> =
            traces.iter_mut().filter(|trace| trace.is_pending()).collect();
        if pending.is_empty() {
            return Ok(());
        }
        let range = |pipe: &mut redis::Pipeline,
                     kind: SliceKind,
                     trace: &MessageTrace,
                     number: usize,
                     bytes: usize| {
            let key = kind.key(&trace.preparation.delivery, 0);
            pipe.cmd("GETRANGE").arg(key).arg(number * bytes).arg((number + 1) * bytes - 1);
        };
        let mut pipe = redis::pipe();
        for trace in &pending {
            let (chunk, _) = place(&trace.preparation, trace.recipient)?;
            range(
                &mut pipe,
                SliceKind::Places(trace.preparation.generation),
                trace,
                chunk as usize,
                PLACE_BYTES,
            );
        }
        let places: Vec<Vec<u8>> = pipe.query_async(&mut self.redis.connection()).await?;
        let mut pipe = redis::pipe();
        for (trace, place) in pending.iter().zip(&places) {
            // A delivery that was removed meanwhile has no table.
            let wave =
                ChunkPlace::parse_all(place).first().map_or(0, |place| usize::from(place.wave));
            range(
                &mut pipe,
                SliceKind::Waves(trace.preparation.generation),
                trace,
                wave,
                WAVE_BYTES,
            );
        }
        let waves: Vec<Vec<u8>> = pipe.query_async(&mut self.redis.connection()).await?;
        for (trace, wave) in pending.iter_mut().zip(&waves) {
            trace.wave = Wave::parse_all(wave).first().copied();
        }
        Ok(())
    }
}

/// The chunk of a recipient number, and the position in the chunk.
fn place(preparation: &RegisteredPreparation, recipient: u32) -> Result<(u32, usize), StoreError> {
    let place = RecipientNumber(recipient.into()).place(preparation.chunk_size);
    place
        .map(|(chunk, position)| (chunk, usize::from(position)))
        .ok_or_else(|| damaged("a preparation has the chunk size 0"))
}
