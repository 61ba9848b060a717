//! One line per job: which step it runs.

use crate::{
    deliveries::Context,
    domain::delivery::DeliveryId,
    queue::{Job, JobError, QueueName, ReceivedJob, Workers},
};

/// Confirmations and steps are short; a few at a time are plenty.
const CONFIRMATIONS: usize = 4;
const STEPS: usize = 4;
/// Those that wait hold up nobody but each other.
const PREPARATIONS: usize = 4;

/// Starts the workers of all queues.
pub fn start(context: &Context, workers: &Workers) {
    let (confirm, steps, preparations, chunks) = (context.clone(), context.clone(), context.clone(), context.clone());
    workers.start(QueueName::Confirm, CONFIRMATIONS, move |job| {
        let context = confirm.clone();
        async move { context.confirm_send(job).await }
    });
    workers.start(QueueName::Steps, STEPS, move |job| run(steps.clone(), job));
    workers.start(QueueName::Preparations, PREPARATIONS, move |job| run(preparations.clone(), job));
    workers.start(QueueName::Chunks, context.config.send.workers, move |job| run(chunks.clone(), job));
}

async fn run(context: Context, received: ReceivedJob) -> Result<(), JobError> {
    match Job::decode(&received.payload)? {
        Job::Prepare { delivery } => context.prepare(&id(&delivery)?).await,
        Job::StartDelivery { delivery } => context.start(&id(&delivery)?).await,
        Job::FinishDelivery { delivery } => context.finish(&id(&delivery)?).await,
        Job::SendChunk { delivery, chunk, .. } => context.send_chunk(&id(&delivery)?, chunk).await,
    }
}

fn id(text: &str) -> Result<DeliveryId, JobError> {
    text.parse().map_err(|e| JobError::Abort(format!("{e}")))
}
