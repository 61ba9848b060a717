//! `versand audit verify`: fetches the audit chains and checks every hash, here and not in the daemon.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use crate::{
    domain::audit::{Entry, verify},
    send::logs::Page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Verify the chain of heads and the chain of every delivery it names; exit code 1 if one is broken
    Verify(Options),
}

#[derive(Debug, Args)]
pub struct Options {
    /// The admin API
    #[arg(long, default_value = "http://127.0.0.1:8025")]
    url: String,
    /// A file with a token that has the role administration
    #[arg(long)]
    token_file: PathBuf,
}

struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    async fn all<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let url = format!("{}{path}?from={from}&limit=1000", self.url);
            let response = self.http.get(&url).bearer_auth(&self.token).send().await.with_context(|| url.clone())?;
            let page: Page<T> = response.error_for_status()?.json().await?;
            all.extend(page.items);
            match page.next {
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
    }
}

/// Verifies everything and says what was found.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Verify(options) = command;
    let token =
        fs::read_to_string(&options.token_file).with_context(|| format!("--token-file {}", options.token_file.display()))?;
    let client = Client { http: reqwest::Client::new(), url: options.url, token: token.trim().to_owned() };
    let heads: Vec<Entry> = client.all("/api/v1/audit").await?;
    let mut out = std::io::stdout();
    let mut broken = 0;
    if let Err(fault) = verify(&heads) {
        broken += 1;
        writeln!(out, "BROKEN the chain of heads: {fault}")?;
    }
    let mut known: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for head in &heads {
        known.entry(&head.subject).or_default().push(head);
    }
    let mut entries = 0;
    for (delivery, heads) in &known {
        let chain: Vec<Entry> = client.all(&format!("/api/v1/deliveries/{delivery}/audit")).await?;
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

/// What is wrong with a chain that should hold every one of these heads.
fn fault(chain: &[Entry], heads: &[&Entry]) -> Option<String> {
    if let Err(fault) = verify(chain) {
        return Some(fault.to_string());
    }
    heads.iter().find_map(|head| {
        let seq = head.details["seq"].as_u64().unwrap_or_default();
        let entry = usize::try_from(seq).ok().and_then(|n| chain.get(n.checked_sub(1)?));
        let same = entry.is_some_and(|entry| Some(entry.hash.as_str()) == head.details["hash"].as_str());
        (!same).then(|| format!("entry {seq} is not the one that the chain of heads vouches for"))
    })
}
