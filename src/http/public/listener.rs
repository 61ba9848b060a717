//! The public listener: open pixels, links, mirror pages and opt-outs. A hit is answered once it is recorded.

use std::{borrow::Cow, sync::Arc, time::Instant};

use axum::{extract::Request, http::StatusCode, response::Response};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::{
    deliveries::Context,
    domain::tracking::HitKind,
    feedback::{LinkError, Visit},
    http::{Peer, Respond, known},
    metrics::{self, RequestMetrics},
};

/// What the public listener serves: method, path, what it does.
pub const PUBLIC_ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/o/{token}", "open pixel"),
    ("GET", "/c/{token}", "a link: goes on to where the delivery's own table says"),
    ("GET", "/m/{token}", "mirror page: the message as its recipient got it"),
    ("GET", "/u/{token}", "a page with one button; it changes nothing"),
    ("POST", "/u/{token}", "opts out, in one click (RFC 8058)"),
];

/// Answers requests of the public listener, without a router: a tenth of a hit's instructions went into calling its routes.
#[derive(Clone)]
pub struct PublicListener(Arc<PublicState>);

struct PublicState {
    context: Context,
    requests: RequestMetrics,
}

impl PublicListener {
    pub fn new(context: Context) -> Self {
        Self(Arc::new(PublicState { context, requests: RequestMetrics::default() }))
    }
}

impl Respond for PublicListener {
    async fn respond(self, Peer(peer): Peer, request: Request<Incoming>) -> Response {
        let began = Instant::now();
        let PublicState { context, requests } = &*self.0;
        // what stands in a form of one click changes nothing
        let (parts, _) = request.into_parts();
        let visit = || Visit::of(peer, &parts, &context.config.public.trusted_proxies);
        let asked = asked(parts.uri.path());
        let response = match &asked {
            None => super::pages::substitution(),
            Some((_, kind, token)) => match (kind, parts.method.as_str()) {
                (HitKind::OptOut, "POST") => Box::pin(opt_out(context, token, visit())).await,
                (HitKind::OptOut, "GET" | "HEAD") => Box::pin(ask(context, token)).await,
                (HitKind::Open, "GET" | "HEAD") => Box::pin(open(context, token, visit())).await,
                (HitKind::Click, "GET" | "HEAD") => Box::pin(click(context, token, visit())).await,
                (HitKind::Mirror, "GET" | "HEAD") => Box::pin(mirror(context, token, visit())).await,
                _ => super::pages::not_allowed(if *kind == HitKind::OptOut { "GET,HEAD,POST" } else { "GET,HEAD" }),
            },
        };
        if let Some((_, kind, _)) = asked
            && response.status() == StatusCode::SERVICE_UNAVAILABLE
        {
            metrics::tracking_hit(kind.word(), "unrecorded");
        }
        let route = asked.map_or("none", |(route, ..)| route);
        requests.answered(route, known(&parts.method), response.status().as_u16(), began.elapsed());
        response
    }
}

/// The pattern of a path, what is asked for, and the token.
fn asked(path: &str) -> Option<(&'static str, HitKind, Cow<'_, str>)> {
    let paths = HitKind::ALL.into_iter().zip(["/o/{token}", "/c/{token}", "/m/{token}", "/u/{token}"]);
    let mut found = paths.filter_map(|(kind, route)| Some((route, kind, path.strip_prefix(route.strip_suffix("{token}")?)?)));
    let (route, kind, token) = found.next().filter(|(_, _, token)| !token.is_empty() && !token.contains('/'))?;
    Some((route, kind, percent_decode_str(token).decode_utf8_lossy()))
}

async fn open(context: &Context, token: &str, visit: Visit) -> Response {
    let recorded = async {
        let found = context.find_sent(HitKind::Open, token).await?;
        context.record_hit(&found, visit).await
    };
    match recorded.await {
        Ok(()) | Err(LinkError::Forged | LinkError::Expired) => super::pages::pixel(),
        Err(miss) => refuse(context, miss),
    }
}

async fn click(context: &Context, token: &str, visit: Visit) -> Response {
    let target = async {
        let found = context.find_sent(HitKind::Click, token).await?;
        // where it leads is looked up first: nobody is told to go on before it is recorded, and nothing recorded leads nowhere
        let target = context.target_of(&found).await?;
        context.record_hit(&found, visit).await?;
        Ok(target)
    };
    match target.await {
        Ok(target) => super::pages::redirect(&target).unwrap_or_else(|| refuse(context, LinkError::Expired)),
        Err(miss) => refuse(context, miss),
    }
}

async fn mirror(context: &Context, token: &str, visit: Visit) -> Response {
    let html = async {
        let found = context.find_sent(HitKind::Mirror, token).await?;
        let html = context.mirror_of(&found).await?;
        context.record_hit(&found, visit).await?;
        Ok(html)
    };
    html.await.map_or_else(|miss| refuse(context, miss), super::pages::mirror)
}

/// Scanners follow every link: a GET must not opt anybody out.
async fn ask(context: &Context, token: &str) -> Response {
    context.find_sent(HitKind::OptOut, token).await.map_or_else(|miss| refuse(context, miss), |_| super::pages::opt_out())
}

async fn opt_out(context: &Context, token: &str, visit: Visit) -> Response {
    let done = async {
        let found = context.find_sent(HitKind::OptOut, token).await?;
        context.opt_out(&found).await?;
        context.record_hit(&found, visit).await
    };
    // never a redirect (RFC 8058, 3.1): what it leads to would be taken for success
    done.await.map_or_else(page, |()| super::pages::opted_out())
}

/// Harmless, whatever was asked for.
fn refuse(context: &Context, miss: LinkError) -> Response {
    let substitution = Some(&context.config.public.substitution_url).filter(|url| !url.is_empty());
    let elsewhere = substitution
        .filter(|_| matches!(miss, LinkError::Forged | LinkError::Expired))
        .and_then(|url| super::pages::redirect(url));
    elsewhere.unwrap_or_else(|| page(miss))
}

fn page(miss: LinkError) -> Response {
    match miss {
        LinkError::Forged | LinkError::Expired => super::pages::substitution(),
        LinkError::Unavailable(_) | LinkError::Unrecorded => super::pages::try_again(),
    }
}
