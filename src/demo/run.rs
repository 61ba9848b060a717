//! The main job on the embedded default, for a newcomer: create, upload, prepare, confirm, watch, read the logs.

use std::{
    io::{IsTerminal, Write, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::client::DemoClient;
use crate::{app::Application, cli, config::Config, metrics};

#[derive(Debug, clap::Args)]
pub struct DemoOptions {
    /// Recipients, at least 20
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..))]
    recipients: u32,
    /// Where the demo keeps its Redis and its token; a folder of the temporary directory if left out
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// End when the delivery has ended, also on a terminal
    #[arg(long)]
    once: bool,
}

/// What people look at first: the ports of the defaults, if they are free.
const LISTEN: [&str; 3] = ["127.0.0.1:8025", "127.0.0.1:8026", "127.0.0.1:8027"];

/// Runs the demo; it stays up on a terminal.
pub async fn run(options: DemoOptions) -> anyhow::Result<ExitCode> {
    let state_dir = options.state_dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("versand-demo-{}", rustix::process::getuid().as_raw()))
    });
    let mut config = Config::from_toml("[log]\nlevel = \"warn,versand::app=error\"")?;
    config.server.state_dir.clone_from(&state_dir);
    let addresses =
        [&mut config.server.listen, &mut config.catcher.listen, &mut config.public.listen];
    for (address, wanted) in addresses.into_iter().zip(LISTEN) {
        let free = std::net::TcpListener::bind(wanted).is_ok();
        *address = if free { wanted } else { "127.0.0.1:0" }.parse()?;
    }
    cli::start_logging(&config.log);
    let application = Application::build(config, metrics::install()?).await?;
    let address = application.address()?;
    let catcher = application
        .catcher()
        .map(|(_, address)| *address)
        .context("the demo runs on the built-in mail catcher")?;
    let client = DemoClient::new(
        format!("http://{address}"),
        application.token().unwrap_or_default().to_owned(),
    );
    say(format_args!(
        "Versand is up: admin API http://{address}, mail catcher {catcher}, state {}\n",
        state_dir.display()
    ))?;

    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = application.run(async {
        let _ = stopped.await;
    });
    let story = async {
        let told = tell(&client, options.recipients).await;
        if let Ok(id) = &told {
            try_next(&client, id, &state_dir, catcher.port())?;
            if stdout().is_terminal() && !options.once {
                say("\nStays up until Ctrl-C.")?;
                tokio::signal::ctrl_c().await?;
            }
        }
        let _ = stop.send(());
        told
    };
    let (drained, told) = tokio::join!(daemon, story);
    told?;
    Ok(if drained? { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(stdout(), "{text}")?;
    Ok(())
}

/// The main job, step by step, over HTTP as anybody would do it; the delivery.
async fn tell(client: &DemoClient, recipients: u32) -> anyhow::Result<String> {
    let created = client.post("/deliveries", &definition()).await?;
    let id = created["id"].as_str().context("no id")?.to_owned();
    say(format_args!(
        "1  created delivery {id} \"{}\"",
        created["definition"]["name"].as_str().unwrap_or_default()
    ))?;
    let audience = client.upload(&id, super::audience::ndjson(recipients)).await?;
    say(format_args!("2  uploaded {} recipients", audience["recipients"]))?;
    client.post(&format!("/deliveries/{id}/prepare"), &json!({})).await?;
    let prepared = client.follow(&id, |state| state == "preparing").await?;
    if prepared["state"] != "prepared" {
        bail!(
            "the preparation failed: {}",
            client.get(&format!("/deliveries/{id}")).await?["checks"]
        );
    }
    let view = client.get(&format!("/deliveries/{id}")).await?;
    let plan = &view["plan"];
    say(format_args!(
        "3  prepared: {} to deliver, {} excluded {}",
        plan["to_deliver"], plan["excluded"], plan["causes"]
    ))?;
    for warning in view["checks"]["warnings"].as_array().into_iter().flatten() {
        say(format_args!("   warning: {}", warning["message"].as_str().unwrap_or_default()))?;
    }
    let confirmed = client
        .post(&format!("/deliveries/{id}/confirm"), &json!({ "digest": plan["digest"] }))
        .await?;
    say(format_args!(
        "4  confirmed by {}: what digest {:.16}... names is what is sent\n",
        confirmed["confirmed_by"].as_str().unwrap_or_default(),
        plan["digest"].as_str().unwrap_or_default()
    ))?;
    let ended =
        client.follow(&id, |state| matches!(state, "start_pending" | "in_progress")).await?;
    say(format_args!("\n5  {}", ended["state"].as_str().unwrap_or_default()))?;
    client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await?;
    figures(&client.get(&format!("/deliveries/{id}/progress")).await?["kpis"])?;
    logs(client, &id).await?;
    Ok(id)
}

fn definition() -> Value {
    json!({
        "name": "Autumn newsletter",
        "sender": { "name": "The Shop", "email": "news@shop.example" },
        "content": {
            "subject": "{{ first_name }}, the autumn is here",
            "html": "<h1>Dear {{ first_name }} {{ last_name }},</h1>\n<p>your {{ points }} points are waiting in {{ city }}.</p>\n<p><a href=\"https://shop.example/autumn\">See the collection</a> or <a href=\"{{ unsubscribe_url }}\">unsubscribe</a>.</p>",
        },
        // the catcher defers some messages once; seconds instead of minutes, so that the demo ends soon
        "settings": { "retry_minutes": [0.03] },
    })
}

fn figures(kpis: &Value) -> anyhow::Result<()> {
    let percent = |name: &str| {
        kpis[name].as_f64().map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", rate * 100.0))
    };
    let count = |name: &str| {
        kpis[name].as_u64().map_or_else(|| "not computed yet".to_owned(), |n| n.to_string())
    };
    for (label, figure, rate) in [
        ("targeted", "targeted", None),
        ("to deliver", "to_deliver", None),
        ("sent", "processed", None),
        ("delivered", "delivered", Some("delivered_rate")),
        ("bounces and errors", "bounces_and_errors", Some("bounce_and_error_rate")),
        ("in doubt", "in_doubt", None),
        ("opens", "unique_opens", None),
        ("clicks", "unique_clicks", None),
    ] {
        say(format_args!(
            "   {label:<20}{:>16}  {}",
            count(figure),
            rate.map(percent).unwrap_or_default()
        ))?;
    }
    Ok(())
}

async fn logs(client: &DemoClient, id: &str) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    say("\n   sending log")?;
    for status in ["sent", "failed"] {
        let page = client.get(&format!("/deliveries/{id}/log?limit=3&status={status}")).await?;
        for line in page["items"].as_array().into_iter().flatten() {
            let reply =
                line["reply"].as_str().unwrap_or_default().lines().next_back().unwrap_or_default();
            say(format_args!(
                "   {:>5}  {:<34}{:<8}{:<14} {reply}",
                text(&line["recipient"]),
                text(&line["email"]),
                text(&line["status"]),
                line["failure_reason"].as_str().unwrap_or("")
            ))?;
        }
    }
    say("\n   exclusion log")?;
    let page = client.get(&format!("/deliveries/{id}/exclusions?limit=4")).await?;
    for line in page["items"].as_array().into_iter().flatten() {
        say(format_args!(
            "   line {:<6}{:<34}{}",
            text(&line["line"]),
            text(&line["email"]),
            text(&line["cause"])
        ))?;
    }
    Ok(())
}

fn try_next(
    client: &DemoClient,
    id: &str,
    state_dir: &std::path::Path,
    smtp_port: u16,
) -> anyhow::Result<()> {
    let (api, token) = (client.api(), state_dir.join("admin.token"));
    say(format_args!(
        "\nTry next (the token is in {token}):\n  \
         T=$(cat {token})\n  \
         curl -H \"Authorization: Bearer $T\" {api}/deliveries/{id}\n  \
         curl -H \"Authorization: Bearer $T\" {api}/deliveries/{id}/recipients/0/preview\n  \
         curl -H \"Authorization: Bearer $T\" '{api}/deliveries/{id}/log/export?format=csv'\n  \
         curl -X POST -H \"Authorization: Bearer $T\" {api}/deliveries/{id}/statistics     # after opening the links of a preview\n  \
         curl {}/metrics\n  \
         {} audit verify --url {} --token-file {token}\n  \
         and any mail program against smtp://127.0.0.1:{smtp_port}",
        client.url(),
        std::env::current_exe()?.display(),
        client.url(),
        token = token.display(),
    ))
}
