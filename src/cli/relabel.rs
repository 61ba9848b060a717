//! `versand relabel`: labels the hits of the past by the rules now in force.

use std::{io::Write, process::ExitCode};

use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::client::{AdminClient, ClientOptions};

/// The options of `versand relabel`.
#[derive(Debug, Args)]
pub struct RelabelOptions {
    #[command(flatten)]
    connection: ClientOptions,
    /// The id of the delivery, or `all`
    delivery: String,
}

/// Relabels and prints the result. Exit code 1 if a delivery could not be relabelled.
///
/// With `all`, a delivery is no failure if it has not started, or if it or its logs are gone.
pub async fn run(options: RelabelOptions) -> anyhow::Result<ExitCode> {
    let client = AdminClient::new(options.connection)?;
    let all = options.delivery == "all";
    let ids = if all { client.delivery_ids().await? } else { vec![options.delivery] };
    let (mut out, mut failed) = (std::io::stdout(), false);
    for id in ids {
        let response =
            client.send(Method::POST, &["api", "v1", "deliveries", &id, "relabel"], "").await?;
        let status = response.status();
        if all && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            // the delivery or its logs are gone
            continue;
        }
        let answer: Value = response.json().await?;
        match status.is_success() {
            true => writeln!(
                out,
                "{id} {} hits, {} unique opens, {} unique clicks",
                answer["hits"], answer["unique_opens"], answer["unique_clicks"]
            )?,
            // most often the delivery has not started
            false => {
                failed |= !all || status != StatusCode::CONFLICT;
                writeln!(out, "{id} {status}: {}", answer["detail"].as_str().unwrap_or_default())?;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
