//! The progress of a delivery as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};

use super::{
    api::Api,
    principal_limits::PrincipalPermit,
    problem::RouteError,
    progress::{Progress, progress_of},
    request::{Caller, Id},
};
use crate::{
    deliveries::Refusal,
    domain::{Principal, delivery::DeliveryId},
};

/// How often the progress is read.
const INTERVAL: Duration = Duration::from_millis(500);

/// Reads the progress of one delivery for one client.
struct Follower {
    api: Arc<Api>,
    id: DeliveryId,
    by: Principal,
    last: Option<Progress>,
    ended: bool,
    _permit: PrincipalPermit,
}

impl Follower {
    /// The next change. `None` after the delivery has ended, was deleted or left the unit of the
    /// principal, and at the shutdown.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if self.ended || self.api.daemon.shutdown.is_cancelled() {
                return None;
            }
            match self.read().await {
                Ok(progress) if Some(&progress) != self.last.as_ref() => {
                    self.ended = progress.state.has_ended();
                    let event = Event::default().event("progress").json_data(&progress).ok()?;
                    self.last = Some(progress);
                    return Some((Ok(event), self));
                }
                Err(Refusal::NotFound) => return None,
                // Nothing has changed, or Redis does not answer: try again.
                Ok(_) | Err(_) => {
                    tokio::select! {
                        () = tokio::time::sleep(INTERVAL) => {}
                        () = self.api.daemon.shutdown.cancelled() => return None,
                    }
                }
            }
        }
    }

    async fn read(&self) -> Result<Progress, Refusal> {
        let delivery = self.api.deliveries.delivery(&self.id).await?;
        if !self.by.sees(&delivery) {
            return Err(Refusal::NotFound);
        }
        progress_of(&self.api, &delivery).await
    }
}

/// Serves `GET /api/v1/deliveries/{id}/events`: each change of the progress until the end.
pub async fn stream(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, RouteError> {
    api.deliveries.delivery(&id).await?;
    let permit = api.operations.limits.principals.stream(&by.name)?;
    let follower = Follower { api, id, by, last: None, ended: false, _permit: permit };
    Ok(Sse::new(stream::unfold(follower, Follower::next)).keep_alive(KeepAlive::default()))
}
