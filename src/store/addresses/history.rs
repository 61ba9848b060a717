//! What became of every message to an address: the index of messages says which there are, ledgers and waves the rest.

use super::message_index::{AddressStore, IndexedMessage, RegisteredPreparation};
use crate::{
    domain::{
        audience::{AddressKey, fatigue},
        delivery::DeliveryState,
        ledger::{HEADER_BYTES, RECORD_BYTES, RecipientNumber, Record, Status},
        schedule::{ChunkPlace, PLACE_BYTES, WAVE_BYTES, Wave},
    },
    store::{StoreError, audience::SliceKind, damaged, keys},
};

/// A message that its address got or is to get.
#[derive(Debug, Clone)]
pub struct MessageTrace {
    pub preparation: RegisteredPreparation,
    /// Number of the recipient in the sending log.
    pub recipient: u32,
    /// `None` as long as there is no ledger: it is pending.
    pub record: Option<Record>,
    /// Of one that is pending.
    pub wave: Option<Wave>,
}

impl MessageTrace {
    fn is_pending(&self) -> bool {
        self.record.is_none_or(|record| record.status == Status::Pending)
    }
}

impl AddressStore {
    /// The messages to an address, in no order; none of deliveries that are not released nor scheduled. Five round trips at
    /// the most, however many they are.
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

    /// Reads their records, and drops what does not count.
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
            let (state, planned): (Option<String>, Option<u32>) =
                redis::from_redis_value_ref(head).map_err(damaged)?;
            let Some(state) = state.filter(|_| planned == Some(trace.preparation.generation))
            else {
                continue;
            };
            let state: DeliveryState = state.parse().map_err(damaged)?;
            let raw: Vec<u8> = redis::from_redis_value_ref(raw).map_err(damaged)?;
            if fatigue::counts(state) {
                found.push(MessageTrace { record: Record::parse(&raw), ..trace });
            }
        }
        *traces = found;
        Ok(())
    }

    /// Reads the waves of those that are pending.
    async fn find_waves(&self, traces: &mut [MessageTrace]) -> Result<(), StoreError> {
        let mut pending: Vec<&mut MessageTrace> =
            traces.iter_mut().filter(|trace| trace.is_pending()).collect();
        if pending.is_empty() {
            return Ok(());
        }
        let range = |pipe: &mut redis::Pipeline,
                     part: SliceKind,
                     trace: &MessageTrace,
                     number: usize,
                     bytes: usize| {
            let key = part.key(&trace.preparation.delivery, 0);
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
            // a delivery that is removed meanwhile has none
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
/// The chunk of a recipient, and the position in it.
fn place(preparation: &RegisteredPreparation, recipient: u32) -> Result<(u32, usize), StoreError> {
    let place = RecipientNumber(recipient.into()).place(preparation.chunk_size);
    place
        .map(|(chunk, position)| (chunk, usize::from(position)))
        .ok_or_else(|| damaged("chunks of nobody"))
}
