//! The jobs that move a delivery to its next step.

use crate::{
    deliveries::{Deliveries, Refusal},
    domain::delivery::{DeliveryId, DeliveryState},
    queue::{Job, Queue, QueueName},
};

/// Puts the jobs of preparations and starts on the queue.
#[derive(Clone)]
pub struct StepJobs {
    pub deliveries: Deliveries,
    pub queue: Queue,
}

impl StepJobs {
    /// Queues the preparation of a delivery, if it is in the state `preparing`.
    ///
    /// `round` is part of the job's id: the same round twice makes one job.
    ///
    /// # Errors
    /// If the delivery is not there, or Redis does not answer.
    pub async fn enqueue_preparation(&self, id: &DeliveryId, round: u64) -> Result<(), Refusal> {
        let delivery = self.deliveries.delivery(id).await?;
        if delivery.state == DeliveryState::Preparing {
            let job = format!("prepare:{id}:{}:{round}", delivery.revision);
            self.queue
                .enqueue(
                    QueueName::Preparations,
                    &job,
                    &Job::Prepare { delivery: id.to_string() }.encode(),
                )
                .await?;
        }
        Ok(())
    }

    /// Queues the start of a delivery that has a due wave.
    ///
    /// `round` is part of the job's id: the same round twice makes one job.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn enqueue_start(&self, id: &DeliveryId, round: u64) -> Result<(), Refusal> {
        let job = Job::StartDelivery { delivery: id.to_string() };
        self.queue.enqueue(QueueName::Steps, &format!("start:{id}:{round}"), &job.encode()).await?;
        Ok(())
    }
}
