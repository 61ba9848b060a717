//! `versand audit verify`: fetches the audit chains and checks every hash itself.
//!
//! The check runs here and not in the daemon, so it does not depend on the daemon's word.

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use clap::Subcommand;

use super::client::{AdminClient, ClientOptions};
use crate::domain::delivery::{AuditEntry, verify};

/// The subcommands of `versand audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Verify the chain of heads and the chains of all deliveries; exit code 1 if one is broken
    Verify(ClientOptions),
}

/// Verifies all chains and prints the result. Exit code 1 if a chain is broken.
pub async fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify(connection) = command;
    let client = AdminClient::new(connection)?;
    let heads: Vec<AuditEntry> = client.all(&["api", "v1", "audit"]).await?;
    let mut out = std::io::stdout();
    let mut broken = 0;
    if let Err(fault) = verify(&heads) {
        broken += 1;
        writeln!(out, "BROKEN the chain of heads: {fault}")?;
    }
    let mut known: BTreeMap<&str, Vec<&AuditEntry>> = BTreeMap::new();
    for head in &heads {
        known.entry(&head.subject).or_default().push(head);
    }
    let mut entries = 0;
    for (delivery, heads) in &known {
        let chain: Vec<AuditEntry> =
            client.all(&["api", "v1", "deliveries", delivery, "audit"]).await?;
        entries += chain.len();
        if let Some(fault) = fault(&chain, heads) {
            broken += 1;
            writeln!(out, "BROKEN delivery {delivery}: {fault}")?;
        }
    }
    writeln!(
        out,
        "{} deliveries, {entries} entries, {} heads: {}",
        known.len(),
        heads.len(),
        if broken == 0 { "all verified" } else { "NOT verified" }
    )?;
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The fault of a chain that must hold all of these heads, if it has one.
fn fault(chain: &[AuditEntry], heads: &[&AuditEntry]) -> Option<String> {
    if let Err(fault) = verify(chain) {
        return Some(fault.to_string());
    }
    heads.iter().find_map(|head| {
        let seq = head.details["seq"].as_u64().unwrap_or_default();
        let entry = usize::try_from(seq).ok().and_then(|n| chain.get(n.checked_sub(1)?));
        let same =
            entry.is_some_and(|entry| Some(entry.hash.as_str()) == head.details["hash"].as_str());
        (!same).then(|| format!("entry {seq} is not the entry that the chain of heads names"))
    })
}
