//! One preparation of one delivery, with its tools.

use std::sync::Arc;

use crate::{
    config::Config,
    daemon::Daemon,
    deliveries::Deliveries,
    domain::delivery::{Definition, Delivery, DeliveryId, DeliveryState, Settings},
    live::Live,
    mail::{MessageMaker, smtp::Relays},
    send::{define::effective_settings, limits::AddressChecks},
    store::{
        StoreError,
        audience::{AudienceStore, PreparationProgress, SliceKind},
        schedule::ScheduleStore,
    },
};

/// The handles that every preparation needs.
#[derive(Clone)]
pub struct PassTools {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub schedules: ScheduleStore,
    pub checks: AddressChecks,
    pub messages: MessageMaker,
    pub relays: Relays,
    pub config: Live<Config>,
    pub daemon: Daemon,
}

/// The delivery that is prepared, as it was when the preparation began.
pub(super) struct Preparation<'a> {
    pub(super) tools: &'a PassTools,
    pub(super) delivery: &'a Delivery,
    pub(super) generation: u32,
    pub(super) settings: Settings,
    /// The configuration when the preparation began. A reload does not change it midway; what must
    /// follow a reload is read from `tools.config`.
    pub(super) config: Arc<Config>,
}

impl<'a> Preparation<'a> {
    pub(super) fn new(tools: &'a PassTools, delivery: &'a Delivery, generation: u32) -> Self {
        let config = tools.config.now();
        let settings = effective_settings(&config, &delivery.document.definition);
        Self { tools, delivery, generation, settings, config }
    }

    pub(super) fn id(&self) -> &'a DeliveryId {
        &self.delivery.id
    }

    pub(super) fn definition(&self) -> &'a Definition {
        &self.delivery.document.definition
    }

    pub(super) fn chunk_size(&self) -> usize {
        self.config.preparation.chunk_size
    }

    /// False if the preparation was stopped, another one has begun, or the daemon ends.
    pub(super) async fn is_wanted(&self) -> Result<bool, StoreError> {
        let PassTools { deliveries, daemon, .. } = self.tools;
        let now = deliveries.read(self.id()).await?;
        let is_current = now.is_some_and(|delivery| {
            delivery.state == DeliveryState::Preparing
                && delivery.document.generation == self.generation
        });
        Ok(is_current && !daemon.shutdown.is_cancelled())
    }

    pub(super) async fn write_slice(
        &self,
        kind: SliceKind,
        number: u32,
        text: &[u8],
    ) -> Result<(), StoreError> {
        self.tools.audiences.write_slice(self.id(), kind, number, text).await
    }

    /// Writes the recipients of a chunk. Their due time is sealed with them.
    pub(super) async fn write_chunk(
        &self,
        kind: SliceKind,
        number: u32,
        text: &[u8],
        due: u32,
    ) -> Result<(), StoreError> {
        self.tools.audiences.write_slice_of(self.id(), kind, number, text, due).await
    }

    pub(super) async fn note_progress(
        &self,
        progress: &PreparationProgress,
    ) -> Result<(), StoreError> {
        self.tools.audiences.note_preparation(self.id(), progress).await
    }
}
