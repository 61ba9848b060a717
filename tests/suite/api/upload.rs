//! Uploads: one that fails changes no audience and costs little, and a long one is counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::{Body, Method, StatusCode};
use serde_json::Value;

use crate::harness::{
    LIMIT,
    app::App,
    client::{Client, answer, audience, definition},
    daemon::Daemon,
    eventually,
    people::{problem, start},
    redis::RedisServer,
};

type Piece = Result<Bytes, std::io::Error>;

fn put(
    client: &Client,
    id: &str,
    pieces: impl Stream<Item = Piece> + Send + 'static,
) -> reqwest::RequestBuilder {
    let request = client.request(Method::PUT, &format!("/deliveries/{id}/audience"));
    request.header("content-type", "application/x-ndjson").body(Body::wrap_stream(pieces))
}

/// Prepares a delivery with `n` recipients. Returns its id and digest.
async fn prepared(app: &App, n: usize) -> (String, Value) {
    let id = app.client.create(&definition()).await;
    app.client.upload(&id, audience(n)).await;
    let view = app.client.prepare(&id).await;
    (id, view["plan"]["digest"].clone())
}

fn slices(redis: &RedisServer, part: &str) -> usize {
    redis.ask(&format!("KEYS *:{part}*")).unwrap().matches(part).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_changes_no_audience() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 10").await;
    let (id, digest) = prepared(&app, 55).await;
    let before = app.client.get(&format!("/deliveries/{id}")).await;
    let (cut, is_cut) = tokio::sync::oneshot::channel();
    let broken = stream::once(async { Ok(audience(100).into()) }).chain(stream::once(async {
        is_cut.await.unwrap();
        Err(std::io::Error::other("the line is dead"))
    }));
    let begun = async {
        eventually("the broken upload has begun", LIMIT, async || {
            let delivery = app.services.deliveries.delivery(&id.parse().unwrap()).await.unwrap();
            (delivery.document.uploads == 2).then_some(())
        })
        .await;
        cut.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(put(&app.client, &id, broken).send(), begun);
    assert!(answer.is_err());
    let mut view = app.client.get(&format!("/deliveries/{id}")).await;
    // The upload that broke off took a number, which raised the revision.
    view["revision"] = before["revision"].clone();
    assert_eq!(view, before, "the delivery is still prepared, with the same digest");
    for _ in 0..2 {
        assert_eq!(
            app.client.prepare(&id).await["plan"]["digest"],
            digest,
            "the earlier audience can be prepared"
        );
    }
    let (status, again) = app.client.upload(&id, audience(20)).await;
    assert_eq!((status, &again["recipients"]), (StatusCode::OK, &20.into()));
    assert_eq!(slices(&redis, "upload."), 2, "the earlier uploads leave no keys");
    assert_eq!(app.client.prepare(&id).await["plan"]["to_deliver"], 20);
    assert_eq!(slices(&redis, "chunks."), 2, "the earlier preparations leave no keys");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_uploads_at_once_counts() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 10").await;
    let id = app.client.create(&definition()).await;
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let slow = stream::once(async { Ok(audience(30).into()) }).chain(stream::once(async {
        let _ = gone.await;
        Ok("{\"email\":\"last@example.com\",\"name\":\"L\"}\n".into())
    }));
    let earlier = tokio::spawn(put(&app.client, &id, slow).send());
    eventually("the first upload has begun", LIMIT, async || {
        (slices(&redis, "upload.1") >= 3).then_some(())
    })
    .await;
    let (status, later) = app.client.upload(&id, audience(7)).await;
    assert_eq!((status, &later["recipients"]), (StatusCode::OK, &7.into()));
    go.send(()).unwrap();
    problem(earlier.await.unwrap().unwrap(), StatusCode::CONFLICT).await;
    assert_eq!(app.client.get(&format!("/deliveries/{id}")).await["audience"], later);
    assert_eq!(app.client.prepare(&id).await["plan"]["to_deliver"], 7);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_was_deleted_or_confirmed_meanwhile_takes_no_audience() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 10").await;
    for delete in [true, false] {
        let (id, digest) = prepared(&app, 3).await;
        let path = format!("/deliveries/{id}");
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let slow = stream::once(async { Ok(audience(30).into()) }).chain(stream::once(async {
            let _ = gone.await;
            Ok(Bytes::new())
        }));
        let upload = tokio::spawn(put(&app.client, &id, slow).send());
        let begun = async || (slices(&redis, &format!("{{{id}}}:upload.2")) >= 3).then_some(());
        eventually("the upload has begun", LIMIT, begun).await;
        if delete {
            let deleted = app.client.request(Method::DELETE, &path).send().await.unwrap();
            assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
        } else {
            assert_eq!(
                app.client.confirm(&id, digest.as_str().unwrap()).await.0,
                StatusCode::ACCEPTED
            );
            app.client.wait_for(&id, &["finished"]).await;
        }
        go.send(()).unwrap();
        let status = if delete { StatusCode::NOT_FOUND } else { StatusCode::CONFLICT };
        problem(upload.await.unwrap().unwrap(), status).await;
        if delete {
            assert_eq!(
                slices(&redis, &format!("{{{id}}}:upload.")),
                0,
                "the upload leaves no keys"
            );
        } else {
            assert_eq!(app.client.log(&id).await.len(), 3);
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_gigabyte_is_refused_at_its_beginning() {
    // A process of its own, so that no other test uses its memory.
    let daemon = Daemon::start("").await;
    let id = daemon.client.create(&definition()).await;
    for kind in ["application/x-ndjson", "text/csv"] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let endless = stream::iter(0..1024).map(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Piece::Ok(piece.clone())
        });
        let before = daemon.resident_kib();
        let request = put(&daemon.client, &id, endless).header("content-type", kind);
        let response = tokio::time::timeout(LIMIT, request.send()).await.unwrap().unwrap();
        let body = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(body["line"], 1, "{body}");
        let mebibytes = sent.load(Ordering::Relaxed);
        assert!(mebibytes < 200, "the daemon read {mebibytes} MiB before the refusal");
        let grown = daemon.resident_kib().saturating_sub(before);
        assert!(grown < 50_000, "the memory grew by {grown} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_upload_is_counted_wherever_it_is_cut() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let id = app.client.create(&definition()).await;
    // The parts are cut anywhere, also within lines and characters.
    let text = audience(40_000).into_bytes();
    let pieces: Vec<Piece> =
        text.chunks(4099).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let (status, body) =
        answer(put(&app.client, &id, stream::iter(pieces)).send().await.unwrap()).await;
    assert_eq!(
        (status, &body["recipients"], &body["slices"]),
        (StatusCode::OK, &40_000.into(), &80.into()),
        "{body}"
    );
    let (status, whole) = app.client.upload(&id, text).await;
    assert_eq!(
        (status, &whole["sha256"]),
        (StatusCode::OK, &body["sha256"]),
        "the cuts change nothing"
    );
    app.stop().await;
}
