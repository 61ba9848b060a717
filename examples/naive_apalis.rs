//! A peer of the benchmark: apalis with a job for each recipient, as its README shows it.
//!
//! It uses lettre's pool, and one record for each recipient in Redis. Use:
//! `naive_apalis REDIS_URL SMTP_PORT MESSAGES SIZE`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use apalis::prelude::*;
use apalis_redis::RedisStorage;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor, message::MultiPart,
    transport::smtp::PoolConfig,
};
use redis::AsyncCommands;
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mail {
    to: String,
    name: String,
}

#[derive(Clone)]
struct Parts {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    redis: redis::aio::ConnectionManager,
    body: Arc<str>,
    done: Arc<AtomicUsize>,
}

async fn send(mail: Mail, parts: Data<Parts>) -> Result<(), BoxDynError> {
    let alternative = MultiPart::alternative_plain_html(
        format!("Dear {},\r\n{}", mail.name, parts.body),
        format!("<p>Dear {},</p><p>{}</p>", mail.name, parts.body),
    );
    let message = Message::builder()
        .from("The Shop <news@shop.example>".parse()?)
        .to(mail.to.parse()?)
        .subject(format!("{}, autumn is here", mail.name))
        .multipart(alternative)?;
    parts.transport.send(message).await?;
    let () = parts.redis.clone().hset("results", &mail.to, "sent").await?;
    parts.done.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, port, messages, size] = arguments.as_slice() else {
        return Err("usage: naive_apalis REDIS_URL SMTP_PORT MESSAGES SIZE".into());
    };
    let (messages, size): (usize, usize) = (messages.parse()?, size.parse()?);
    let redis = redis::Client::open(url.as_str())?.get_connection_manager().await?;
    let mut storage = RedisStorage::new(redis.clone());
    for i in 0..messages {
        storage
            .push(Mail { to: format!("user{i}@example.com"), name: format!("Customer {i}") })
            .await?;
    }
    let pool = PoolConfig::new().max_size(20);
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(port.parse()?)
        .pool_config(pool)
        .build();
    let body: Arc<str> = format!("{}\r\n", "x".repeat(70)).repeat(size.div_ceil(144)).into();
    let parts = Parts { transport, redis, body, done: Arc::default() };
    let done = parts.done.clone();
    let worker =
        WorkerBuilder::new("naive").backend(storage).concurrency(20).data(parts).build(send);
    let began = Instant::now();
    let all = async {
        while done.load(Ordering::Relaxed) < messages {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = worker.run() => return Err(format!("the worker ended after {}: {ended:?}", done.load(Ordering::Relaxed)).into()),
        () = all => {}
    }
    std::io::Write::write_all(
        &mut std::io::stdout(),
        format!("{{\"seconds\": {}}}\n", began.elapsed().as_secs_f64()).as_bytes(),
    )?;
    Ok(())
}
