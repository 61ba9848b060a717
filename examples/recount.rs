//! Counts every record of every ledger of a delivery, for the benchmark.
//!
//! The end of a delivery does the same; no route asks for that alone. Use:
//! `recount REDIS_URL DELIVERY RECIPIENTS CHUNK_SIZE`.

use std::time::Instant;

use versand::{
    config::Config,
    domain::{delivery::DeliveryId, ledger::Counts},
    store::{Redis, Stores},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Ledgers read at a time: the end of a delivery reads as many.
const AT_A_TIME: u32 = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, delivery, recipients, chunk_size] = arguments.as_slice() else {
        return Err("usage: recount REDIS_URL DELIVERY RECIPIENTS CHUNK_SIZE".into());
    };
    let (delivery, recipients): (DeliveryId, u32) = (delivery.parse()?, recipients.parse()?);
    let chunks = recipients.div_ceil(chunk_size.parse()?);
    let mut settings = Config::from_toml("")?.redis;
    settings.url.clone_from(url);
    let stores = Stores::new(
        Redis::connect(&settings).await?,
        &versand::domain::seal::InstallationKey::new([7; 32]),
    );
    stores.redis.ping().await?;
    let (began, mut counts, mut open) = (Instant::now(), Counts::default(), 0);
    for from in (0..chunks).step_by(AT_A_TIME as usize) {
        for ledger in stores.ledgers.ledgers(&delivery, from..chunks.min(from + AT_A_TIME)).await? {
            let ledger = ledger.ok_or("a ledger is missing")?;
            counts.add(&ledger);
            open += ledger.records().filter(|record| record.claimable_at(None).is_some()).count();
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    if counts.total() != u64::from(recipients) {
        return Err(format!("{} records for {recipients} recipients", counts.total()).into());
    }
    let line = format!("{{\"seconds\": {seconds}, \"sent\": {}, \"open\": {open}}}\n", counts.sent);
    Ok(std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?)
}
