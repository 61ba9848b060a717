//! `versand audit verify`: fetches the audit chains and checks them itself.
//!
//! The hashes are checked here, so they do not depend on the daemon's word. The daemon says of each
//! entry whether its seal fits, because only daemons have the key.

use std::{collections::BTreeSet, io::Write, process::ExitCode};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;

use super::client::{AdminClient, ClientOptions};
use crate::domain::delivery::{AuditCheck, AuditHead, CheckedEntry, OPERATIONS};

/// The subcommands of `versand audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Verify the chain of heads and all chains that it covers; exit code 1 if one is broken
    Verify(AuditVerifyOptions),
}

/// The options of `versand audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerifyOptions {
    #[command(flatten)]
    connection: ClientOptions,
    /// An audit head from the log of a daemon, as NUMBER:HASH; the chain of heads must hold it
    #[arg(long = "head", value_name = "NUMBER:HASH", value_parser = head)]
    heads: Vec<AuditHead>,
}

fn head(text: &str) -> Result<AuditHead, String> {
    let parsed = text
        .split_once(':')
        .and_then(|(seq, hash)| Some(AuditHead { seq: seq.parse().ok()?, hash: hash.to_owned() }));
    parsed.ok_or_else(|| "expected the number and the hash of a log line `audit head`".into())
}

/// The newest audit head that the daemon keeps outside Redis.
#[derive(Deserialize)]
struct KeptHeadView {
    kept: Option<AuditHead>,
}

/// Verifies all chains and prints the result. Exit code 1 if a chain is broken.
pub async fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify(AuditVerifyOptions { connection, heads: mut known }) = command;
    let client = AdminClient::new(connection)?;
    // before the chain of heads, which grows meanwhile
    let kept = client.send(Method::GET, &["api", "v1", "audit", "kept-head"], "").await?;
    known.extend(kept.error_for_status()?.json::<KeptHeadView>().await?.kept);
    let heads: Vec<CheckedEntry> = client.all(&["api", "v1", "audit"]).await?;
    let (check, faults) = AuditCheck::new(&heads, &known, true);
    let mut broken: Vec<String> =
        faults.into_iter().map(|fault| format!("the chain of heads: {fault}")).collect();
    let (mut deliveries, mut entries, mut operations) = (0, 0, 0);
    // the chain of heads may lack a chain
    let mut names: BTreeSet<String> = client.delivery_ids().await?.into_iter().collect();
    names.extend(check.chains().map(str::to_owned));
    names.insert(OPERATIONS.to_owned());
    for name in &names {
        let chain: Vec<CheckedEntry> = match name.as_str() {
            OPERATIONS => client.all(&["api", "v1", "audit", OPERATIONS]).await?,
            id => client.all(&["api", "v1", "deliveries", id, "audit"]).await?,
        };
        let of = if name == OPERATIONS {
            operations = chain.len();
            "the chain of operations".to_owned()
        } else {
            (deliveries, entries) = (deliveries + 1, entries + chain.len());
            format!("delivery {name}")
        };
        broken.extend(check.fault(name, &chain).map(|fault| format!("{of}: {fault}")));
    }
    let mut out = std::io::stdout();
    for fault in &broken {
        writeln!(out, "BROKEN {fault}")?;
    }
    writeln!(
        out,
        "{deliveries} deliveries, {entries} entries, {operations} operations, {} heads: {}",
        heads.len(),
        if broken.is_empty() { "all verified" } else { "NOT verified" }
    )?;
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
