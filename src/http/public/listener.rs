//! The public listener: open pixels, links, mirror pages and opt-outs. A hit is answered once it is recorded.

use std::{borrow::Cow, sync::Arc, time::Instant};

use axum::{extract::Request, http::StatusCode, response::Response};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::{
    domain::tracking::HitKind,
    feedback::{Feedback, LinkError, Visit},
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
    feedback: Feedback,
    requests: RequestMetrics,
}

impl PublicListener {
    pub fn new(feedback: Feedback) -> Self {
        Self(Arc::new(PublicState { feedback, requests: RequestMetrics::default() }))
    }
}

impl Respond for PublicListener {
    async fn respond(self, Peer(peer): Peer, request: Request<Incoming>) -> Response {
        let began = Instant::now();
        let PublicState { feedback, requests } = &*self.0;
        // what stands in a form of one click changes nothing
        let (parts, _) = request.into_parts();
        let visit = || Visit::of(peer, &parts, &feedback.links.config.public.trusted_proxies);
        let asked = asked(parts.uri.path());
        let response = match &asked {
            None => super::pages::substitution(),
            Some((_, kind, token)) => match (kind, parts.method.as_str()) {
                (HitKind::OptOut, "POST") => Box::pin(opt_out(feedback, token, visit())).await,
                (HitKind::OptOut, "GET" | "HEAD") => Box::pin(ask(feedback, token)).await,
                (HitKind::Open, "GET" | "HEAD") => Box::pin(open(feedback, token, visit())).await,
                (HitKind::Click, "GET" | "HEAD") => Box::pin(click(feedback, token, visit())).await,
                (HitKind::Mirror, "GET" | "HEAD") => {
                    Box::pin(mirror(feedback, token, visit())).await
                }
                _ => super::pages::not_allowed(if *kind == HitKind::OptOut {
                    "GET,HEAD,POST"
                } else {
                    "GET,HEAD"
                }),
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
    let paths =
        HitKind::ALL.into_iter().zip(["/o/{token}", "/c/{token}", "/m/{token}", "/u/{token}"]);
    let mut found = paths.filter_map(|(kind, route)| {
        Some((route, kind, path.strip_prefix(route.strip_suffix("{token}")?)?))
    });
    let (route, kind, token) =
        found.next().filter(|(_, _, token)| !token.is_empty() && !token.contains('/'))?;
    Some((route, kind, percent_decode_str(token).decode_utf8_lossy()))
}

async fn open(feedback: &Feedback, token: &str, visit: Visit) -> Response {
    let recorded = async {
        let found = feedback.links.find(HitKind::Open, token).await?;
        feedback.hits.record_hit(&found, visit).await
    };
    match recorded.await {
        Ok(()) | Err(LinkError::Forged | LinkError::Expired) => super::pages::pixel(),
        Err(miss) => refuse(feedback, miss),
    }
}

async fn click(feedback: &Feedback, token: &str, visit: Visit) -> Response {
    let target = async {
        let found = feedback.links.find(HitKind::Click, token).await?;
        // where it leads is looked up first: nobody is told to go on before it is recorded, and nothing recorded leads nowhere
        let target = feedback.links.target_of(&found).await?;
        feedback.hits.record_hit(&found, visit).await?;
        Ok(target)
    };
    match target.await {
        Ok(target) => {
            super::pages::redirect(&target).unwrap_or_else(|| refuse(feedback, LinkError::Expired))
        }
        Err(miss) => refuse(feedback, miss),
    }
}

async fn mirror(feedback: &Feedback, token: &str, visit: Visit) -> Response {
    let html = async {
        let found = feedback.links.find(HitKind::Mirror, token).await?;
        let html = feedback.links.mirror_of(&found).await?;
        feedback.hits.record_hit(&found, visit).await?;
        Ok(html)
    };
    html.await.map_or_else(|miss| refuse(feedback, miss), super::pages::mirror)
}

/// Scanners follow every link: a GET must not opt anybody out.
async fn ask(feedback: &Feedback, token: &str) -> Response {
    feedback
        .links
        .find(HitKind::OptOut, token)
        .await
        .map_or_else(|miss| refuse(feedback, miss), |_| super::pages::opt_out())
}

async fn opt_out(feedback: &Feedback, token: &str, visit: Visit) -> Response {
    let done = async {
        let found = feedback.links.find(HitKind::OptOut, token).await?;
        feedback.denylist.opt_out(&found).await?;
        feedback.hits.record_hit(&found, visit).await
    };
    // never a redirect (RFC 8058, 3.1): what it leads to would be taken for success
    done.await.map_or_else(page, |()| super::pages::opted_out())
}

/// Harmless, whatever was asked for.
fn refuse(feedback: &Feedback, miss: LinkError) -> Response {
    let substitution =
        Some(&feedback.links.config.public.substitution_url).filter(|url| !url.is_empty());
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
