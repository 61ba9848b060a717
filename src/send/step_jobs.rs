//! TODO head

use crate::{
    deliveries::{Deliveries, Refusal},
    domain::delivery::{DeliveryId, DeliveryState},
    queue::{Job, Queue, QueueName},
};

#[derive(Clone)]
pub struct StepJobs {
    pub deliveries: Deliveries,
    pub queue: Queue,
}

impl StepJobs {
    /// Puts the job of a preparation on the queue; another round makes another job.
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

    /// Puts the job that starts a released delivery on the queue; another round makes another job.
    pub async fn enqueue_start(&self, id: &DeliveryId, round: u64) -> Result<(), Refusal> {
        let job = Job::StartDelivery { delivery: id.to_string() };
        self.queue.enqueue(QueueName::Steps, &format!("start:{id}:{round}"), &job.encode()).await?;
        Ok(())
    }
}
