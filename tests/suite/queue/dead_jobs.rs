//! Dead jobs: listed, retried and discarded by a command.

use std::{io::Write, process::Command};

use versand::{cli::Arguments, queue::QueueName};

use crate::harness::{LIMIT, app::App, eventually, redis::RedisServer, run_to_end};

/// Runs `versand jobs` with these arguments. Returns its exit code and its output.
fn jobs(app: &App, token: &str, arguments: &[&str]) -> (i32, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{token}").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
    command
        .arg("jobs")
        .args(arguments)
        .args(["--url", &app.client.url, "--token-file"])
        .arg(file.path());
    let output = run_to_end(&mut command, LIMIT);
    let printed =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code().unwrap(), printed)
}

/// The daemon, and three jobs that it could not read. Two of them are on one queue.
async fn with_dead_jobs(redis: &RedisServer) -> App {
    let app = App::start(redis, "").await;
    for (queue, id) in
        [(QueueName::Steps, "one"), (QueueName::Steps, "two"), (QueueName::Confirm, "three")]
    {
        assert!(
            app.services
                .journey
                .preparations
                .jobs
                .queue
                .enqueue(queue, id, b"no job")
                .await
                .unwrap()
        );
    }
    dead(&app, 3).await;
    app
}

async fn dead(app: &App, wanted: u64) {
    eventually(&format!("{wanted} dead jobs"), LIMIT, async || {
        let depths = app.services.journey.preparations.jobs.queue.depths().await.unwrap();
        (depths.iter().map(|depth| depth.dead).sum::<u64>() == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_jobs_are_counted_listed_retried_and_discarded_by_a_command() {
    let redis = RedisServer::start();
    let app = with_dead_jobs(&redis).await;
    let token = app.client.token.clone();
    let metrics =
        async || reqwest::get(format!("{}/metrics", app.client.url)).await.ok()?.text().await.ok();
    let counted = "versand_queue_jobs{queue=\"steps\",state=\"dead\"} 2";
    eventually("the dead jobs are counted", LIMIT, async || {
        metrics().await?.contains(counted).then_some(())
    })
    .await;

    let (code, printed) = jobs(&app, &token, &["list"]);
    assert!(code == 0 && printed.contains("3 dead jobs"), "{code}: {printed}");
    let (code, printed) = jobs(&app, &token, &["list", "--queue", "steps"]);
    assert!(
        code == 0 && printed.contains("steps\tone\t1 attempts\t20") && !printed.contains("three"),
        "{code}: {printed}"
    );
    assert!(
        printed.contains("the payload") || printed.contains("not"),
        "the command shows the reason: {printed}"
    );

    // A retried job is soon dead again.
    assert_eq!(jobs(&app, &token, &["retry", "one", "--queue", "confirm"]).0, 1);
    let (code, printed) = jobs(&app, &token, &["retry", "one"]);
    assert!(code == 0 && printed.contains("1 queued again"), "{code}: {printed}");
    dead(&app, 3).await;

    let (code, printed) = jobs(&app, &token, &["discard", "no-such-job"]);
    assert!(code == 1 && printed.contains("no such dead job"), "{code}: {printed}");
    let (code, printed) = jobs(&app, &token, &["discard", "two"]);
    assert!(code == 0 && printed.contains("1 discarded"), "{code}: {printed}");
    let (code, printed) = jobs(&app, &token, &["retry", "--all", "--queue", "steps"]);
    assert!(code == 0 && printed.contains("1 queued again"), "{code}: {printed}");
    dead(&app, 2).await;
    let (code, printed) = jobs(&app, &token, &["discard", "--all"]);
    assert!(code == 0 && printed.contains("2 discarded"), "{code}: {printed}");
    dead(&app, 0).await;
    assert!(jobs(&app, &token, &["list"]).1.contains("0 dead jobs"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_ids_are_shown_and_reach_their_job() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let (odd, dead_set) =
        ("../a b/%2e?\u{1b}", format!("{}:dead", QueueName::Confirm.redis_name()));
    let mut conn = app.services.stores.redis.connection();
    let () = redis::cmd("SADD").arg(&dead_set).arg(odd).query_async(&mut conn).await.unwrap();
    let (code, printed) = jobs(&app, &app.client.token, &["list"]);
    assert!(code == 0 && printed.contains("../a b/%2e?\\u{1b}"), "{code}: {printed}");
    // The queue would set this entry aside again, so a retry leaves it as it is.
    let (code, printed) = jobs(&app, &app.client.token, &["retry", "--all"]);
    assert!(code == 1 && printed.contains("left as it is"), "{code}: {printed}");
    let (code, printed) = jobs(&app, &app.client.token, &["discard", "--all"]);
    assert!(code == 0 && printed.contains("1 discarded"), "{code}: {printed}");
    assert_eq!(jobs(&app, "not the token", &["list"]).0, 1);
    app.stop().await;
}

#[test]
fn the_command_takes_one_job_or_all_of_them() {
    use clap::Parser;
    let parse = |words: &str| {
        Arguments::try_parse_from(format!("versand jobs {words} --token-file t").split_whitespace())
    };
    for good in ["list", "retry a", "discard --all", "retry --queue confirm a"] {
        assert!(parse(good).is_ok(), "{good}");
    }
    for bad in ["retry", "discard a --all", "list --queue nonsense"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
