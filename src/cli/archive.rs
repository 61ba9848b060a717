//! `versand archive`: writes a delivery with all its logs to a file.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use reqwest::Method;

use super::client::{AdminClient, ClientOptions};
use crate::report::write_durably;

/// The options of `versand archive`.
#[derive(Debug, Args)]
pub struct ArchiveOptions {
    /// The id of the delivery
    delivery: String,
    /// The file to write, zstd-compressed NDJSON; must not exist
    file: PathBuf,
    #[command(flatten)]
    connection: ClientOptions,
}

/// Writes the whole file, or none at all.
pub async fn run(options: ArchiveOptions) -> anyhow::Result<ExitCode> {
    let ArchiveOptions { delivery, file, connection } = options;
    anyhow::ensure!(!file.try_exists()?, "{} exists already", file.display());
    let client = AdminClient::new(connection)?;
    let response =
        client.send(Method::GET, &["api", "v1", "deliveries", &delivery, "archive"], "").await?;
    if !response.status().is_success() {
        let problem: serde_json::Value = response.json().await?;
        anyhow::bail!("{}", problem["detail"].as_str().unwrap_or("refused"));
    }
    write_durably(&file, &std::process::id().to_string(), response.bytes_stream()).await?;
    Ok(ExitCode::SUCCESS)
}
