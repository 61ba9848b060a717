//! The steps of the demo: create, upload, prepare, confirm, follow, read the logs.

use std::{
    io::{IsTerminal, Write, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::client::DemoClient;
use crate::{app::Application, config::Config, logging, metrics};

/// The options of `versand demo`.
#[derive(Debug, clap::Args)]
pub struct DemoOptions {
    /// How many recipients, at least 20
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..))]
    recipients: u32,
    /// Where the demo keeps its Redis and its token; a temporary folder if left out
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// End when the delivery has ended, even on a terminal
    #[arg(long)]
    once: bool,
}

/// The default addresses of the admin API, the mail catcher and the public listener. A taken one
/// is replaced by a free port.
const LISTEN: [&str; 3] = ["127.0.0.1:8025", "127.0.0.1:8026", "127.0.0.1:8027"];

/// Runs the demo. On a terminal it stays up until Ctrl-C, unless `once` is set.
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
    logging::start(&config.log);
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
    let session = async {
        let shown = show_main_job(&client, options.recipients).await;
        if let Ok(id) = &shown {
            suggest_next(&client, id, &state_dir, catcher.port())?;
            if stdout().is_terminal() && !options.once {
                say("\nThe daemon stays up until Ctrl-C.")?;
                tokio::signal::ctrl_c().await?;
            }
        }
        let _ = stop.send(());
        shown
    };
    let (drained, shown) = tokio::join!(daemon, session);
    shown?;
    Ok(if drained? { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(stdout(), "{text}")?;
    Ok(())
}

/// Does the main job over HTTP and prints each step. Returns the id of the delivery.
async fn show_main_job(client: &DemoClient, recipients: u32) -> anyhow::Result<String> {
    let created = client.post("/deliveries", &definition()).await?;
    let id = created["id"].as_str().context("no id")?.to_owned();
    say(format_args!(
        "1  created delivery {id} \"{}\"",
        created["definition"]["name"].as_str().unwrap_or_default()
    ))?;
    let audience = client.upload(&id, super::sample_audience::ndjson(recipients)).await?;
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
        "4  confirmed by {}: digest {:.16}... names exactly what is sent\n",
        confirmed["confirmed_by"].as_str().unwrap_or_default(),
        plan["digest"].as_str().unwrap_or_default()
    ))?;
    let ended =
        client.follow(&id, |state| matches!(state, "start_pending" | "in_progress")).await?;
    say(format_args!("\n5  {}", ended["state"].as_str().unwrap_or_default()))?;
    client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await?;
    print_kpis(&client.get(&format!("/deliveries/{id}/progress")).await?["kpis"])?;
    print_logs(client, &id).await?;
    Ok(id)
}

/// The HTML template of the demo's delivery.
const HTML: &str = "<h1>Dear {{ first_name }} {{ last_name }},</h1>\n\
    <p>your {{ points }} points are waiting in {{ city }}.</p>\n\
    <p><a href=\"https://shop.example/autumn\">See the collection</a> or \
    <a href=\"{{ unsubscribe_url }}\">unsubscribe</a>.</p>";

fn definition() -> Value {
    json!({
        "name": "Autumn newsletter",
        "sender": { "name": "The Shop", "email": "news@shop.example" },
        "content": {
            "subject": "{{ first_name }}, the autumn is here",
            "html": HTML,
        },
        // The catcher defers some messages once. A retry after two seconds lets the demo end soon.
        "settings": { "retry_minutes": [0.03] },
    })
}

/// Prints the key figures.
fn print_kpis(kpis: &Value) -> anyhow::Result<()> {
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

/// Prints some lines of the sending log and of the exclusion log.
async fn print_logs(client: &DemoClient, id: &str) -> anyhow::Result<()> {
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

/// Prints commands to try next.
fn suggest_next(
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
         curl -X POST -H \"Authorization: Bearer $T\" {api}/deliveries/{id}/statistics     \
         # after you open the links of a preview\n  \
         curl {}/metrics\n  \
         {} audit verify --url {} --token-file {token}\n  \
         and any mail program against smtp://127.0.0.1:{smtp_port}",
        client.url(),
        std::env::current_exe()?.display(),
        client.url(),
        token = token.display(),
    ))
}
