//! Settings and tokens at the real command line: one line names a bad value, with exit code 64.

use std::{fs, process::Command};

use reqwest::{Method, StatusCode};

use crate::harness::{
    LIMIT, app::App, client::definition, redis::RedisServer, repository, run, run_to_end,
};

fn versand(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
    command.args(arguments);
    command
}

/// Bad settings, and the words that the one line must contain.
const BAD: [(&str, &str); 48] = [
    ("[server]\nport = 1", "server.port"),
    ("[colour]\nred = 1", "colour"),
    ("colour = 1", "colour"),
    ("[send]\nworkers = \"many\"", "send.workers"),
    ("[send]\nworkers = -1", "send.workers"),
    ("[send]\nworkers = 0", "send.workers"),
    ("[send]\nworkers = 1001", "send.workers"),
    ("[send]\nlease_ms = 10", "send.lease_ms"),
    ("[send]\nin_doubt = \"guess\"", "send.in_doubt"),
    ("[send]\nretry_minutes = []", "send.retry_minutes"),
    ("[send]\nretry_minutes = [0]", "send.retry_minutes"),
    ("[send]\nvalidity_hours = nan", "send.validity_hours"),
    ("[server]\nlisten = \"nowhere\"", "server.listen"),
    ("[server]\ndrain_ms = 1e9", "server.drain_ms"),
    ("[server]\nconnections = 0", "server.connections"),
    ("[redis]\nurl = \"redis://:secret@127.0.0.1\"", "redis.url"),
    ("[redis]\nurl = \"redis://127.0.0.1\"\npassword_file = \"/nowhere/p\"", "redis.password_file"),
    ("[redis]\npassword_file = \"/dev/null\"", "redis.password_file"),
    ("[auth]\nfailures_per_minute = 100001", "auth.failures_per_minute"),
    ("[relay]\ntls = \"maybe\"", "relay.tls"),
    ("[relay]\nport = 70000", "relay.port"),
    ("[relay]\nhost = \"x\"\nusername = \"me\"\ntls = \"starttls\"", "relay.password_file"),
    (
        "[relay]\nhost = \"x\"\nusername = \"me\"\ntls = \"starttls\"\npassword_file = \"/nowhere/p\"",
        "relay.password_file",
    ),
    ("[relay]\nhost = \"x\"\ntls = \"implicit\"\nca_file = \"/nowhere/ca.pem\"", "relay.ca_file"),
    ("[relay]\nweight = 1001", "relay.weight: must be 0..1000, is 1001"),
    ("[relay]\nsender_domains = [\"a@b.example\"]", "relay.sender_domains[0]"),
    ("[[relays]]\nhost = \"x\"", "relays[0]: missing field `name`"),
    ("[[relays]]\nname = \"a\"", "relays[0].host"),
    ("[[relays]]\nname = \"a b\"\nhost = \"x\"", "relays[0].name"),
    (
        "[[relays]]\nname = \"a\"\nhost = \"x\"\n[[relays]]\nname = \"a\"\nhost = \"y\"",
        "relays[1].name",
    ),
    ("[[relays]]\nname = \"a\"\nhost = \"x\"\ncolour = 1", "relays[0].colour"),
    ("[[relays]]\nname = \"a\"\nhost = \"x\"\nport = 70000", "relays[0].port"),
    ("[[relays]]\nname = \"a\"\nhost = \"x\"\nweight = -1", "relays[0].weight"),
    ("[[relays]]\nname = \"a\"\nhost = \"x\"\nconnections = 0", "relays[0].connections"),
    (
        "[[relays]]\nname = \"a\"\nhost = \"x\"\nsender_domains = [\"x.example\", \"*\"]",
        "relays[0].sender_domains[1]",
    ),
    ("[[relays]]\nname = \"a\"\nhost = \"x\"\ntls = \"maybe\"", "relays[0].tls"),
    (
        "[[relays]]\nname = \"a\"\nhost = \"x\"\nusername = \"me\"\npassword_file = \"/dev/null\"",
        "relays[0].tls",
    ),
    (
        "[relay]\nhost = \"x\"\nusername = \"me\"\ntls = \"starttls\"\n[[relays]]\nname = \"a\"",
        "relays[0].password_file",
    ),
    (
        "[relay]\nhost = \"x\"\n[[relays]]\nname = \"a\"\n[[relays]]\nname = \"b\"\ntls = \"implicit\"\nca_file = \"/nowhere/ca.pem\"",
        "relays[1].ca_file",
    ),
    ("[preparation]\nallowed_senders = []", "preparation.allowed_senders"),
    ("[[auth.tokens]]\nname = \"a\"\nsha256 = \"x\"\nroles = []", "auth.tokens[0].sha256"),
    ("[[auth.tokens]]\nname = \"a\"\nroles = []", "auth.tokens[0]"),
    (
        "[[auth.jwt_keys]]\nissuer = \"a\"\nalgorithm = \"ES256\"\nkey_file = \"/nowhere/k.pem\"\nroles = []",
        "key_file",
    ),
    (
        "[[auth.jwt_keys]]\nissuer = \"a\"\nalgorithm = \"none\"\nkey_file = \"/dev/null\"\nroles = []",
        "algorithm",
    ),
    (
        "[[auth.jwt_keys]]\nissuer = \"a\"\nalgorithm = \"HS256\"\nkey_file = \"/dev/null\"\nroles = [\"king\"]",
        "roles",
    ),
    ("[[auth.tokens]]\nname = \"versand\"\nsha256 = \"HASH\"\nroles = []", "auth.tokens[0].name"),
    (
        "[[auth.jwt_keys]]\nissuer = \"Versand\"\nalgorithm = \"HS256\"\nkey_file = \"/dev/null\"\nroles = []",
        "auth.jwt_keys[0].issuer",
    ),
    ("[log]\nlevel = \"versand=loud\"", "log.level"),
];

fn refused(command: &mut Command, named: &str) {
    let output = run_to_end(command, LIMIT);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{named}: {printed}");
    assert!(
        printed.lines().count() == 1 && printed.starts_with("versand: ") && printed.contains(named),
        "{named}: {printed}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_bad_setting_is_named_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("versand.toml");
    let path = file.to_str().unwrap();
    for (settings, named) in BAD {
        fs::write(&file, settings.replace("HASH", &"0".repeat(64))).unwrap();
        refused(&mut versand(&["check-config", "--config", path]), named);
    }
    fs::write(&file, "[send]\nworkers = 0").unwrap();
    refused(&mut versand(&["serve", "--config", path]), "send.workers");
    fs::write(&file, "[send\nworkers = 0").unwrap();
    refused(&mut versand(&["serve", "--config", path]), "TOML");
    fs::remove_file(&file).unwrap();
    refused(&mut versand(&["serve", "--config", path]), path);
    refused(versand(&["check-config"]).env("VERSAND__SEND__WORKERS", "0"), "send.workers");
    refused(versand(&["check-config"]).env("VERSAND__SEND__WORKERS", "many"), "send.workers");
    refused(versand(&["check-config"]).env("VERSAND__SEND__COLOUR", "red"), "send.colour");
    refused(
        versand(&["check-config"]).env("VERSAND_RELAY_HOST", "relay.example"),
        "VERSAND_RELAY_HOST",
    );
    refused(versand(&["check-config"]).env("VERSAND__REDIS__URL", "http://127.0.0.1"), "redis.url");
}

#[test]
fn good_settings_are_accepted() {
    let defaults = repository("config/default.toml");
    for command in [
        versand(&["check-config"]).env("VERSAND__SEND__WORKERS", "3"),
        versand(&["check-config", "--config", defaults.to_str().unwrap()])
            .env("VERSAND__RELAY__HOST", "relay.example"),
    ] {
        let output = run(command, LIMIT);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "the settings are good\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_token_works() {
    let made = run(
        &mut versand(&["token", "--name", "shop \"A\"", "--role", "prepare_deliveries"]),
        LIMIT,
    );
    let (token, settings) =
        (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    assert!(!settings.contains(token.trim()), "only the hash of the token");
    let redis = RedisServer::start();
    let app = App::start(&redis, &settings).await;
    let client = app.client.with_token(token.trim());
    let id = client.create(&definition()).await;
    assert_eq!(client.get(&format!("/deliveries/{id}")).await["created_by"], "shop \"A\"");
    let forbidden =
        client.request(Method::POST, &format!("/deliveries/{id}/pause")).send().await.unwrap();
    assert_eq!(forbidden.status(), StatusCode::FORBIDDEN);
    let other = client
        .with_token(&token.trim()[1..])
        .request(Method::GET, "/deliveries")
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), StatusCode::UNAUTHORIZED);
    app.stop().await;
}
