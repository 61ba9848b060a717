//! The public listener: open pixels, links, mirror pages and opt-outs. A hit is answered once it is recorded.

mod pages;
mod visit;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, State},
    middleware,
    response::Response,
    routing::get,
};

use super::observe;
use crate::{
    domain::tracking::HitKind,
    send::{
        Context,
        track::{Miss, Visit},
    },
};

/// What the public listener serves: method, path, what it does.
pub const PUBLIC_ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/o/{token}", "open pixel"),
    ("GET", "/c/{token}", "a link: goes on to where the delivery's own table says"),
    ("GET", "/m/{token}", "mirror page: the message as its recipient got it"),
    ("GET", "/u/{token}", "a page with one button; it changes nothing"),
    ("POST", "/u/{token}", "opts out, in one click (RFC 8058)"),
];

/// A form of one click is short.
const BODY_LIMIT: usize = 16 * 1024;

/// The router of the public listener.
pub fn router(context: Context) -> Router {
    Router::new()
        .route("/o/{token}", get(open))
        .route("/c/{token}", get(click))
        .route("/m/{token}", get(mirror))
        .route("/u/{token}", get(ask).post(opt_out))
        .fallback(|| async { pages::substitution() })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(observe))
        .with_state(context)
}

async fn open(State(context): State<Context>, Path(token): Path<String>, visit: Visit) -> Response {
    let recorded = async {
        let found = context.find_sent(HitKind::Open, &token).await?;
        context.record_hit(&found, visit).await
    };
    match recorded.await {
        Ok(()) | Err(Miss::Forged | Miss::Expired) => pages::pixel(),
        Err(miss) => refuse(&context, miss),
    }
}

async fn click(State(context): State<Context>, Path(token): Path<String>, visit: Visit) -> Response {
    let target = async {
        let found = context.find_sent(HitKind::Click, &token).await?;
        // where it leads is looked up first: nobody is told to go on before it is recorded, and nothing recorded leads nowhere
        let target = context.target_of(&found).await?;
        context.record_hit(&found, visit).await?;
        Ok(target)
    };
    match target.await {
        Ok(target) => pages::redirect(&target).unwrap_or_else(|| refuse(&context, Miss::Expired)),
        Err(miss) => refuse(&context, miss),
    }
}

async fn mirror(State(context): State<Context>, Path(token): Path<String>, visit: Visit) -> Response {
    let html = async {
        let found = context.find_sent(HitKind::Mirror, &token).await?;
        let html = context.mirror_of(&found).await?;
        context.record_hit(&found, visit).await?;
        Ok(html)
    };
    html.await.map_or_else(|miss| refuse(&context, miss), pages::mirror)
}

/// Scanners follow every link: a GET must not opt anybody out.
async fn ask(State(context): State<Context>, Path(token): Path<String>) -> Response {
    context.find_sent(HitKind::OptOut, &token).await.map_or_else(|miss| refuse(&context, miss), |_| pages::opt_out())
}

async fn opt_out(State(context): State<Context>, Path(token): Path<String>, visit: Visit) -> Response {
    let done = async {
        let found = context.find_sent(HitKind::OptOut, &token).await?;
        context.opt_out(&found).await?;
        context.record_hit(&found, visit).await
    };
    // never a redirect (RFC 8058, 3.1): what it leads to would be taken for success
    done.await.map_or_else(page, |()| pages::opted_out())
}

/// Harmless, whatever was asked for.
fn refuse(context: &Context, miss: Miss) -> Response {
    let substitution = Some(&context.config.public.substitution_url).filter(|url| !url.is_empty());
    let elsewhere = substitution.filter(|_| matches!(miss, Miss::Forged | Miss::Expired)).and_then(|url| pages::redirect(url));
    elsewhere.unwrap_or_else(|| page(miss))
}

fn page(miss: Miss) -> Response {
    match miss {
        Miss::Forged | Miss::Expired => pages::substitution(),
        Miss::Unavailable(_) | Miss::Unrecorded => pages::try_again(),
    }
}
