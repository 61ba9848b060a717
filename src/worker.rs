//! One line per job: which step it runs.

use crate::{
    domain::delivery::DeliveryId,
    queue::{Job, JobError, QueueName, ReceivedJob, Workers},
    send::Journey,
};

/// Confirmations and steps are short; a few at a time are plenty.
const CONFIRMATIONS: usize = 4;
const STEPS: usize = 4;
/// Those that wait hold up nobody but each other.
const PREPARATIONS: usize = 4;

/// Starts the workers of all queues; `chunks` is how many chunks are sent at a time.
pub fn start(journey: &Journey, chunks: usize, workers: &Workers) {
    let confirmations = journey.confirm.from_queue.clone();
    workers.start(QueueName::Confirm, CONFIRMATIONS, move |job| {
        let confirmations = confirmations.clone();
        async move { confirmations.confirm_send(job).await }
    });
    for (queue, concurrency) in [
        (QueueName::Steps, STEPS),
        (QueueName::Preparations, PREPARATIONS),
        (QueueName::Chunks, chunks),
    ] {
        let journey = journey.clone();
        workers.start(queue, concurrency, move |job| run(journey.clone(), job));
    }
}

async fn run(journey: Journey, received: ReceivedJob) -> Result<(), JobError> {
    match Job::decode(&received.payload)? {
        Job::Prepare { delivery } => journey.preparations.run(&id(&delivery)?).await,
        Job::StartDelivery { delivery } => journey.release.starts.start(&id(&delivery)?).await,
        Job::FinishDelivery { delivery } => journey.recover.finishes.finish(&id(&delivery)?).await,
        Job::SendChunk { delivery, chunk, .. } => {
            journey.chunks.send_chunk(&id(&delivery)?, chunk).await
        }
    }
}

fn id(text: &str) -> Result<DeliveryId, JobError> {
    text.parse().map_err(|e| JobError::Abort(format!("{e}")))
}
