//! A loop over deliveries in which no delivery holds up another.

use futures_util::{StreamExt, stream};

use super::Refusal;
use crate::{domain::delivery::DeliveryId, store::StoreError};

/// Does `step` for each delivery, `at_a_time` of them in parallel. A failed step is logged with the
/// text `failure`, and the others go on.
///
/// # Errors
/// If a step met an error of Redis that may be gone at the next try. The rest is left for that
/// try.
pub async fn each_delivery<F: Future<Output = Result<(), Refusal>>>(
    ids: Vec<DeliveryId>,
    at_a_time: usize,
    failure: &str,
    step: impl Fn(DeliveryId) -> F,
) -> Result<(), StoreError> {
    let mut steps = stream::iter(ids)
        .map(|id| async { (step(id.clone()).await, id) })
        .buffer_unordered(at_a_time);
    while let Some((done, id)) = steps.next().await {
        match done {
            Ok(()) => {}
            Err(Refusal::Unavailable(error)) if error.may_pass() => return Err(error),
            Err(error) => tracing::error!(delivery.id = %id, %error, "{failure}"),
        }
    }
    Ok(())
}
