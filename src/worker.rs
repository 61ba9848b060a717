//! Jobs to steps: which handler serves which queue, and which step runs a job.

use crate::{
    domain::delivery::DeliveryId,
    queue::{Job, JobError, QueueName, ReceivedJob, Workers},
    send::Journey,
};

/// How many run at a time. Confirmations and steps are short, so a few are enough.
const CONFIRMATIONS: usize = 4;
const STEPS: usize = 4;
/// How many preparations run at a time. The next ones wait, and delay no other queue.
const PREPARATIONS: usize = 4;

/// Starts the workers of all queues. `chunks` is the number of chunks that are sent at a time.
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

/// Runs the step of a job.
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
