//! Fills the tracking log for the benchmark: an open and a click of each recipient.
//!
//! The hits are recorded in the same way as by the public listener. Use:
//! `fill_tracking_log REDIS_URL DELIVERY GENERATION RECIPIENTS CHUNK_SIZE`.

use std::net::IpAddr;

use jiff::Timestamp;
use versand::{
    config::Config,
    domain::{
        delivery::DeliveryId,
        tracking::{Hit, HitKind, HitLabel, NO_AGENT, NO_LINK},
    },
    store::{Redis, Stores, tracking::PreparationRef},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, delivery, generation, recipients, chunk_size] = arguments.as_slice() else {
        return Err(
            "usage: fill_tracking_log REDIS_URL DELIVERY GENERATION RECIPIENTS CHUNK_SIZE".into()
        );
    };
    let (delivery, recipients): (DeliveryId, u32) = (delivery.parse()?, recipients.parse()?);
    let of = PreparationRef {
        delivery,
        generation: generation.parse()?,
        chunk_size: chunk_size.parse()?,
    };
    let mut settings = Config::from_toml("")?.redis;
    settings.url.clone_from(url);
    let stores = Stores::new(
        Redis::connect(&settings).await?,
        &versand::domain::seal::InstallationKey::new([7; 32]),
    );
    let (at_ms, from) =
        (u64::try_from(Timestamp::now().as_millisecond())?, IpAddr::from([192, 0, 2, 7]));
    let mut recorded = 0;
    for first in (0..recipients).step_by(of.chunk_size as usize) {
        let hit = |recipient, kind, link| Hit {
            recipient,
            at_ms,
            kind,
            label: HitLabel::Human,
            rules: 1,
            link,
            signs: 0,
            agent: NO_AGENT,
            from,
        };
        let both = |recipient| {
            [
                hit(recipient, HitKind::Open, NO_LINK),
                hit(recipient, HitKind::Click, (recipient % 2) as u16),
            ]
        };
        let hits: Vec<(Hit, &str)> = (first..recipients.min(first + of.chunk_size))
            .flat_map(both)
            .map(|hit| (hit, AGENT))
            .collect();
        recorded += stores.tracking.record_hits(&of, &hits, 0).await?;
    }
    if recorded != 2 * u64::from(recipients) {
        return Err(format!("{recorded} hits are recorded of {recipients} recipients").into());
    }
    Ok(())
}
