//! The work whose instructions `make guard` counts: rendering, ledger and SMTP, on one thread.
//!
//! Use: `guard render N`, `guard ledger N REDIS_URL` or `guard smtp N PORT`.

use versand::domain::ledger::ChunkRef;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use versand::{
    config::Config,
    domain::{
        audience::Recipient,
        delivery::{Content, DeliveryId, Sender, Tracking},
        ledger::{ClaimNumber, Ledger, Status, flags},
    },
    mail::{
        smtp::{Envelope, Relay, Transaction},
        template::{MessageStamp, Template},
    },
    store::{
        Redis, Stores,
        chunks::{Batch, Claim, Report, ReportEffect, Taken, TakeoverGrounds},
        keys,
    },
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const CHUNK: u16 = 500;
/// Recipients that the connections claim and report in one batch.
const GROUP: u16 = 20;
/// 2026-11-23T14:50:01Z
const NOW: u32 = 1_795_445_401;
const FROM: &str = "news@shop.example";
const PARAGRAPH: &str = "the leaves fall, and so do the prices of {{ product }}: everything that kept us warm in the last winter must go \
    before the next one comes, from the thick socks of {{ city }} to the scarves that nobody dared to wear. ";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["render", n] => render(n.parse()?),
        ["ledger", n, url] => ledger(n.parse()?, url).await,
        ["smtp", n, port] => smtp(n.parse()?, port.parse()?).await,
        _ => Err("usage: guard render N | ledger N REDIS_URL | smtp N PORT".into()),
    }
}

fn recipient(i: u32) -> Recipient {
    let fields = json!({"name": format!("Customer {i}"), "product": "scarves", "city": "Bergen", "customer": "2f1b0c44", "note": "Bye!"});
    Recipient {
        line: 1,
        email: format!("user{i}@example.com"),
        fields: fields.as_object().cloned().unwrap_or_default(),
    }
}

/// Both parts of a message of about 4 kB.
fn render(n: u32) -> Result<(), Failure> {
    let sender = Sender {
        name: Some("The Shop".into()),
        email: FROM.into(),
        reply_to: None,
        envelope_from: None,
    };
    let content = Content {
        subject: "{{ name }}, autumn is here".into(),
        html: Some(format!(
            "<html><body><h1>Dear {{{{ name }}}}</h1>{{% for i in range(7) %}}<p style=\"font-family:sans-serif\">{PARAGRAPH}</p>{{% endfor %}}\
             <p><a href=\"https://shop.example/offer?who={{{{ customer }}}}\">Have a look</a></p><p>{{{{ note }}}}</p></body></html>"
        )),
        text: Some(format!(
            "Dear {{{{ name }}}},\n\n{{% for i in range(7) %}}{PARAGRAPH}\n\n{{% endfor %}}{{{{ note }}}}\n"
        )),
    };
    let template = Template::compile(&sender, &content, &Tracking::default(), 512 * 1024)
        .map_err(|problems| format!("{problems:?}"))?;
    let (recipient, date) = (recipient(7), Timestamp::from_second(i64::from(NOW))?);
    for i in 0..n {
        let stamp = MessageStamp {
            date,
            message_id: format!("d1.c2.r{i}@shop.example"),
            boundary: format!("d1c2r{i}"),
            signer: None,
        };
        std::hint::black_box(
            template.render(&recipient, &stamp).map_err(|error| format!("{error:?}"))?,
        );
    }
    Ok(())
}

/// Claims and records, chunk after chunk. Each batch reports the claims of the batch before it.
async fn ledger(n: u32, url: &str) -> Result<(), Failure> {
    let mut settings = Config::from_toml("")?.redis;
    settings.url = url.into();
    let stores = Stores::new(
        Redis::connect(&settings).await?,
        &versand::domain::seal::InstallationKey::new([7; 32]),
    );
    let at = ChunkRef { delivery: DeliveryId::from_random([7; 10]), chunk: 0 };
    let mut connection = stores.redis.connection();
    let () = redis::cmd("HSET")
        .arg(keys::delivery(&at.delivery))
        .arg("state")
        .arg("in_progress")
        .query_async(&mut connection)
        .await?;
    for chunk in 0..n.div_ceil(u32::from(CHUNK)) {
        let at = ChunkRef { chunk, ..at.clone() };
        let packed = Ledger::new(CHUNK);
        let () = redis::cmd("SET")
            .arg(keys::ledger(&at.delivery, chunk))
            .arg(packed.bytes())
            .query_async(&mut connection)
            .await?;
        let Taken::Yes(mut lease, _) =
            stores.ledgers.take_lease(&at, 1, TakeoverGrounds::default(), NOW).await?
        else {
            return Err("not taken".into());
        };
        for first in (0..=CHUNK).step_by(usize::from(GROUP)) {
            let report = |position| Report {
                position,
                claim: ClaimNumber { epoch: lease.epoch, n: 1 },
                status: Some(Status::Sent),
                reason: 0,
                flags: flags::ACCEPTED,
                when: NOW,
                reply: String::new(),
            };
            let batch = Batch {
                reports: (first.saturating_sub(GROUP)..first).map(report).collect(),
                claims: (first..CHUNK.min(first + GROUP))
                    .map(|position| Claim { position, n: 1 })
                    .collect(),
                redo: false,
            };
            let answer = stores.ledgers.write_batch(&at, &lease, &batch, NOW, None).await?;
            lease.seq += 1;
            if !answer.reports.iter().all(|applied| *applied == ReportEffect::Applied)
                || !answer.granted.iter().all(|granted| *granted)
            {
                return Err(format!("not applied: {answer:?}").into());
            }
        }
        stores.ledgers.give_back(&at, &lease, NOW, None).await?;
    }
    Ok(())
}

/// One connection; each envelope is pipelined with the message before it.
async fn smtp(n: u32, port: u16) -> Result<(), Failure> {
    let mut settings = Config::from_toml("")?.relay;
    (settings.host, settings.port, settings.hello_name) =
        ("127.0.0.1".into(), port, "bench.example".into());
    (settings.messages_per_connection, settings.connections) = (1_000_000, 1);
    let relay = Relay::new(&settings)?;
    let mut connection = relay.connection().await.map_err(|fault| format!("{fault:?}"))?;
    let message =
        format!("Subject: x\r\n\r\n{}", format!("{}\r\n", "x".repeat(70)).repeat(63)).into_bytes();
    let envelope = |i: u32| {
        let made = Envelope::new(FROM, &format!("user{i}@example.com"), message.len());
        made.map(Arc::new).map_err(|reply| format!("{reply:?}"))
    };
    let mut current = envelope(0)?;
    for i in 1..=n {
        let next = (i < n).then(|| envelope(i)).transpose()?;
        match connection.send(&current, &mut message.clone(), next.clone(), &|| true).await {
            Transaction::Accepted(_) => {}
            other => return Err(format!("not accepted: {other:?}").into()),
        }
        current = next.unwrap_or(current);
    }
    drop(connection);
    relay.close().await;
    Ok(())
}
