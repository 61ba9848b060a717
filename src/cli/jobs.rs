//! `versand jobs`: lists, retries or discards dead jobs.

use std::{collections::BTreeSet, io::Write, process::ExitCode};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::client::{AdminClient, ClientOptions};
use crate::queue::QueueName;

/// The subcommands of `versand jobs`.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List the dead jobs: queue, id, attempts, end, reason
    List(Listing),
    /// Put a dead job, or all of them, back on its queue as if it were new
    Retry(Choice),
    /// Forget a dead job, or all of them
    Discard(Choice),
}

/// The options of `versand jobs list`.
#[derive(Debug, Args)]
pub struct Listing {
    #[command(flatten)]
    connection: ClientOptions,
    /// One of confirm, steps, chunks, preparations; all of them if left out
    #[arg(long)]
    queue: Option<QueueName>,
}

/// The options of `versand jobs retry` and `discard`.
#[derive(Debug, Args)]
pub struct Choice {
    #[command(flatten)]
    listing: Listing,
    /// The id of the job
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<String>,
    /// All jobs that are dead now
    #[arg(long)]
    all: bool,
}

/// A dead job as the API shows it.
#[derive(Deserialize)]
struct Dead {
    id: String,
    /// JSON: `{"Err": "..."}`.
    result: String,
    attempts: u32,
    done_at: i64,
}

/// Lists, retries or discards dead jobs.
///
/// Exit code 1 if there was no such job, or if a job was left as it is.
pub async fn run(command: JobsCommand) -> anyhow::Result<ExitCode> {
    match command {
        JobsCommand::List(listing) => list(listing).await,
        JobsCommand::Retry(choice) => {
            change(
                choice,
                Change { method: Method::POST, step: Some("retry"), done: "queued again" },
            )
            .await
        }
        JobsCommand::Discard(choice) => {
            change(choice, Change { method: Method::DELETE, step: None, done: "discarded" }).await
        }
    }
}

fn queues(chosen: Option<QueueName>) -> Vec<QueueName> {
    chosen.map_or_else(|| QueueName::ALL.to_vec(), |queue| vec![queue])
}

/// The dead jobs of a queue, each of them once: the API may show a job on two pages.
async fn dead(client: &AdminClient, queue: QueueName) -> anyhow::Result<Vec<Dead>> {
    let mut seen = BTreeSet::new();
    let all: Vec<Dead> = client.all(&["api", "v1", "queues", queue.as_str(), "dead"]).await?;
    Ok(all.into_iter().filter(|job| seen.insert(job.id.clone())).collect())
}

async fn list(listing: Listing) -> anyhow::Result<ExitCode> {
    let client = AdminClient::new(listing.connection)?;
    let (mut out, mut found) = (std::io::stdout(), 0);
    for queue in queues(listing.queue) {
        for job in dead(&client, queue).await? {
            found += 1;
            let ended = Timestamp::from_second(job.done_at).unwrap_or_default();
            // A foreign producer may have written control characters: escape them.
            let (id, reason) = (job.id.escape_debug(), reason(&job.result));
            writeln!(
                out,
                "{}\t{id}\t{} attempts\t{ended}\t{}",
                queue.as_str(),
                job.attempts,
                reason.escape_debug()
            )?;
        }
    }
    writeln!(out, "{found} dead jobs")?;
    Ok(ExitCode::SUCCESS)
}

/// The error of a JSON result, or the result itself if it has another form.
fn reason(result: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(result).ok();
    json.and_then(|json| Some(json["Err"].as_str()?.to_owned()))
        .unwrap_or_else(|| result.to_owned())
}

/// A change of a dead job: the request, and the word for the result.
struct Change {
    method: Method,
    step: Option<&'static str>,
    done: &'static str,
}

async fn change(choice: Choice, change: Change) -> anyhow::Result<ExitCode> {
    let client = AdminClient::new(choice.listing.connection)?;
    let (mut out, mut changed, mut left) = (std::io::stdout(), 0, 0);
    for queue in queues(choice.listing.queue) {
        let ids = match &choice.id {
            Some(id) => vec![id.clone()],
            None => dead(&client, queue).await?.into_iter().map(|job| job.id).collect(),
        };
        for id in ids {
            let path =
                ["api", "v1", "queues", queue.as_str(), "dead", &id].into_iter().chain(change.step);
            let answer = client.send(change.method.clone(), &path.collect::<Vec<_>>(), "").await?;
            match answer.status() {
                status if status.is_success() => changed += 1,
                // The job may be on another queue.
                StatusCode::NOT_FOUND if !choice.all => {}
                // The id is one that no job can have, or somebody else was faster.
                StatusCode::NOT_FOUND => {
                    left += 1;
                    writeln!(
                        out,
                        "{}\t{}\tleft as it is: {}",
                        queue.as_str(),
                        id.escape_debug(),
                        answer.text().await?
                    )?;
                }
                _ => drop(answer.error_for_status()?),
            }
        }
    }
    let good = left == 0 && (choice.all || changed > 0);
    let none = if changed == 0 && !choice.all { ": there is no such dead job" } else { "" };
    writeln!(out, "{changed} {}{none}", change.done)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
