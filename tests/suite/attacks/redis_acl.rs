//! Programs with a narrow user of Redis that try more than their user is for.

use redis::{ErrorKind, aio::MultiplexedConnection};
use versand::{config::RedisSettings, queue::QueueName, store::Redis};

use crate::harness::{
    app::App,
    client::{audience, definition},
    redis::{RedisServer, connect, connect_as},
};

/// A server that leaves all to the rights of its users.
const CARELESS: [&str; 4] = ["--enable-debug-command", "yes", "--enable-module-command", "yes"];

/// A store with a prepared delivery, a secret, and a job that waits on the queue of the producer.
struct Target {
    app: App,
    redis: RedisServer,
    id: String,
}

/// The queue of the producer.
fn queue() -> &'static str {
    QueueName::Confirm.redis_name()
}

impl Target {
    async fn new() -> Self {
        let redis = RedisServer::start_with(&CARELESS);
        let app = App::start(&redis, "").await;
        let id = app.client.create(&definition()).await;
        app.client.upload(&id, audience(3)).await;
        app.client.prepare(&id).await;
        for command in [
            format!("HSET {}:data other secret-payload", queue()),
            format!("HSET {}:meta:other status Pending", queue()),
            format!("SADD {}:watched x", queue()),
            "SET versand:outcome:other {}".to_owned(),
            "SET versand:secret:other sealed".to_owned(),
            "SET outside value".to_owned(),
        ] {
            redis.ask(&command).unwrap();
        }
        Self { app, redis, id }
    }

    async fn user(&self, name: &str) -> MultiplexedConnection {
        connect_as(self.redis.connection_info(name)).await
    }

    /// The keys of the delivery, of the queue and of the outcomes, and the foreign key, with their
    /// content. Keys that a running daemon writes by itself are left out.
    async fn content(&self) -> Vec<(String, Vec<u8>)> {
        let mut conn = connect(&self.redis.url()).await;
        let of_producer = format!("{}:*", queue());
        let mut content = Vec::new();
        for pattern in [&format!("versand:{{{}}}:*", self.id), &of_producer, "versand:o*", "outs*"]
        {
            let keys: Vec<String> =
                redis::cmd("KEYS").arg(pattern).query_async(&mut conn).await.unwrap();
            for key in keys.into_iter().filter(|key| !key.contains(":workers")) {
                let dump: Option<Vec<u8>> =
                    redis::cmd("DUMP").arg(&key).query_async(&mut conn).await.unwrap();
                content.extend(dump.map(|dump| (key, dump)));
            }
        }
        content.sort();
        content
    }
}

/// Runs a command whose words are separated by `|`, and once more from within a script. Both must
/// be refused: for lack of rights, or because no script may call this command.
async fn is_refused(conn: &mut MultiplexedConnection, command: &str) {
    let words: Vec<&str> = command.split('|').collect();
    let mut call = redis::cmd(words[0]);
    call.arg(&words[1..]);
    let error = call.query_async::<redis::Value>(conn).await.expect_err(command);
    assert_eq!(error.code(), Some("NOPERM"), "{command}: {error}");
    let mut script = redis::cmd("EVAL");
    script.arg("return redis.call(unpack(ARGV))").arg(0).arg(&words);
    let error = script.query_async::<redis::Value>(conn).await.expect_err(command);
    let text = error.to_string();
    let is_denied = error.code() == Some("NOPERM")
        || text.contains("The user executing the script can't")
        || text.contains("not allowed from script");
    assert!(is_denied, "{command} in a script: {text}");
}

/// Commands that a narrow user may not run. Some touch keys of a delivery, of another queue, of the
/// installation or of other programs. The others administer Redis.
fn forbidden(id: &str) -> Vec<String> {
    let steps = QueueName::Steps.redis_name();
    let mut commands: Vec<String> = [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS|*",
        "SCAN|0",
        "RANDOMKEY",
        "DBSIZE",
        "CONFIG|GET|requirepass",
        "CONFIG|SET|appendonly|no",
        "ACL|LIST",
        "ACL|SETUSER|producer|+@all",
        "ACL|WHOAMI",
        "CLIENT|LIST",
        "CLIENT|KILL|TYPE|normal",
        "MONITOR",
        "DEBUG|SLEEP|0",
        "SHUTDOWN|NOSAVE",
        "REPLICAOF|127.0.0.1|1",
        "SAVE",
        "BGREWRITEAOF",
        "MODULE|LIST",
        "SLOWLOG|GET",
        "SCRIPT|FLUSH",
        "SCRIPT|KILL",
        "FUNCTION|LIST",
        "FUNCTION|FLUSH",
        "PUBLISH|x|y",
        "SUBSCRIBE|x",
        "SWAPDB|0|1",
        "SELECT|1",
        "MIGRATE|127.0.0.1|1|outside|0|1",
        "GET|outside",
        "SET|outside|x",
        "DEL|outside",
        "RENAME|outside|versand:outcome:x",
        "COPY|outside|versand:outcome:x",
        "GET|versand:secret:other",
        "SET|versand:secret:other|x",
        "SET|versand:outcome:other|x",
        "DEL|versand:outcome:other",
        "GET|versand:installation",
        "GETDEL|versand:outcome:other",
        "GETEX|versand:outcome:other|EX|1",
        "SMEMBERS|versand:moving",
        "SORT|versand:outcome:other|BY|nosort|GET|versand:secret:*",
        "TOUCH|versand:secret:other",
        "HSET|versand:{daemons}:hold|since|1",
        "DEL|versand:{daemons}:hold",
    ]
    .map(str::to_owned)
    .to_vec();
    for key in ["delivery", "audit", "counts", "ledger:0", "chunks.1:0", "replies:0", "open"] {
        let key = format!("versand:{{{id}}}:{key}");
        for read in ["GET", "HGETALL", "LRANGE", "TYPE", "EXISTS", "DUMP", "OBJECT|ENCODING"] {
            let range = if read == "LRANGE" { "|0|-1" } else { "" };
            commands.push(format!("{read}|{key}{range}"));
        }
        commands.extend(["DEL", "UNLINK", "PERSIST"].map(|write| format!("{write}|{key}")));
        commands.push(format!("HSET|{key}|state|in_progress"));
        commands.push(format!("RPUSH|{key}|x"));
    }
    for key in ["data", "meta:x", "active", "inflight:x"] {
        commands.push(format!("HSETNX|{steps}:{key}|x|y"));
        commands.push(format!("HSET|{steps}:{key}|x|y"));
        commands.push(format!("RPUSH|{steps}:{key}|x"));
    }
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_reaches_its_queue_and_nothing_else() {
    let target = Target::new().await;
    let before = target.content().await;
    let mut conn = target.user("producer").await;
    let queue = queue();
    for command in forbidden(&target.id) {
        is_refused(&mut conn, &command).await;
    }
    // Its own queue: payloads of others hold tokens, and a waiting job is not to be changed.
    for command in [
        format!("HGET|{queue}:data|other"),
        format!("HGETALL|{queue}:data"),
        format!("HSET|{queue}:data|other|mine"),
        format!("HDEL|{queue}:data|other"),
        format!("HGETALL|{queue}:meta:other"),
        format!("LRANGE|{queue}:active|0|-1"),
        format!("LPOP|{queue}:active"),
        format!("RPUSH|{queue}:dead|other"),
        format!("HSETNX|{queue}:active|x|y"),
        format!("HSET|{queue}:watched|x|y"),
        format!("DEL|{queue}:data"),
        format!("EXPIRE|{queue}:data|1"),
    ] {
        is_refused(&mut conn, &command).await;
    }
    // Keys that a script declares are no way round, either.
    for key in ["outside", "versand:secret:other", &format!("versand:{{{}}}:delivery", target.id)] {
        let mut script = redis::cmd("EVAL");
        script.arg("return redis.call('TYPE', KEYS[1])").arg(1).arg(key);
        let error = script.query_async::<redis::Value>(&mut conn).await.expect_err(key);
        assert_eq!(error.code(), Some("NOPERM"), "{key}: {error}");
    }
    assert_eq!(target.content().await, before);
    let outcome: String =
        redis::cmd("GET").arg("versand:outcome:other").query_async(&mut conn).await.unwrap();
    assert_eq!(outcome, "{}");
    target.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_sees_figures_and_touches_no_key() {
    let target = Target::new().await;
    let before = target.content().await;
    let mut conn = target.user("exporter").await;
    for command in forbidden(&target.id).into_iter().chain(
        ["EVAL|return 1|0", "GET|versand:outcome:other", "CONFIG|GET|*", "TIME"].map(str::to_owned),
    ) {
        let words: Vec<&str> = command.split('|').collect();
        let mut call = redis::cmd(words[0]);
        call.arg(&words[1..]);
        let error = call.query_async::<redis::Value>(&mut conn).await.expect_err(&command);
        assert_eq!(error.code(), Some("NOPERM"), "{command}: {error}");
    }
    for command in ["PING", "INFO|all", "SLOWLOG|LEN", "LATENCY|LATEST", "LATENCY|HISTOGRAM"] {
        let words: Vec<&str> = command.split('|').collect();
        let mut call = redis::cmd(words[0]);
        call.arg(&words[1..]);
        call.query_async::<redis::Value>(&mut conn).await.expect(command);
    }
    assert_eq!(target.content().await, before);
    target.app.stop().await;
}

/// Whoever takes over the daemon's user has its keys, but neither Redis nor the keys of others.
#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_daemon_administers_nothing_and_reaches_no_foreign_key() {
    let redis = RedisServer::start_with(&CARELESS);
    redis.ask("SET outside value").unwrap();
    {
        let mut conn = connect_as(redis.connection_info("versand")).await;
        for command in [
            "FLUSHALL",
            "FLUSHDB",
            "KEYS|*",
            "SCAN|0",
            "RANDOMKEY",
            "CONFIG|SET|dir|/tmp",
            "ACL|LIST",
            "CLIENT|LIST",
            "MONITOR",
            "DEBUG|SLEEP|0",
            "SHUTDOWN|NOSAVE",
            "REPLICAOF|127.0.0.1|1",
            "SAVE",
            "BGREWRITEAOF",
            "MODULE|LIST",
            "SLOWLOG|GET",
            "SCRIPT|FLUSH",
            "FUNCTION|FLUSH",
            "PUBLISH|x|y",
            "GET|outside",
            "SET|outside|x",
            "DEL|outside",
            "RENAME|outside|versand:x",
            "BLPOP|versand:x|0",
            "SORT|versand:x",
        ] {
            is_refused(&mut conn, command).await;
        }
    }
    redis.ask("ACL LOG RESET").unwrap();
    assert!(redis.ask("GET outside").unwrap().contains("value"));
}

/// The redis crate connects as the default user if it has a user and no password.
#[tokio::test]
async fn a_user_without_a_password_never_becomes_the_default_user() {
    let redis = RedisServer::start();
    let nameless = RedisSettings { password_file: Default::default(), ..redis.settings() };
    let refused = Redis::connect(&nameless).await.err().expect("refused").to_string();
    assert!(refused.starts_with("redis.password_file: is needed for the user"), "{refused}");
    assert_eq!(Redis::check(&nameless).unwrap_err().to_string(), refused);
    // The daemon connects as the user that the URL names.
    let conn = Redis::connect(&redis.settings()).await.unwrap().connection();
    let clients = redis.ask("CLIENT LIST").unwrap();
    assert_eq!(clients.matches("user=versand").count(), 2, "{clients}");
    drop(conn);
    let error = connect_as_wrong(&redis).await;
    assert_eq!(error, ErrorKind::AuthenticationFailed);
}

async fn connect_as_wrong(redis: &RedisServer) -> ErrorKind {
    let info = redis.connection_info("producer");
    let settings = info.redis_settings().clone().set_password("wrong");
    let client = redis::Client::open(info.set_redis_settings(settings)).unwrap();
    client.get_multiplexed_async_connection().await.expect_err("refused").kind()
}
