//! The public listener: open pixels, links, mirror pages and opt-outs.
//!
//! A hit that counts is recorded before it gets its pixel, redirect or page.

use std::{borrow::Cow, sync::Arc, time::Instant};

use axum::{extract::Request, http::StatusCode, response::Response};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::pages;
use crate::{
    domain::tracking::HitKind,
    feedback::{Feedback, LinkError, OptOutLink, Visit},
    http::{
        answer_headers::add_answer_headers,
        listen::{BusyMark, Peer, Respond, method_label},
    },
    metrics::{self, RequestMetrics},
};

/// The routes of the public listener: method, path, help text.
pub const PUBLIC_ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/o/{token}", "open pixel"),
    ("GET", "/c/{token}", "a tracked link: redirects to its target in the delivery's own table"),
    ("GET", "/m/{token}", "mirror page: the message as the recipient got it"),
    ("GET", "/u/{token}", "a page with an opt-out button; the request changes nothing"),
    ("POST", "/u/{token}", "opt out with one click (RFC 8058)"),
];

/// Answers the requests of the public listener. Cheap to clone.
///
/// It uses no router: a router took a tenth of the instructions of a hit.
#[derive(Clone)]
pub struct PublicListener(Arc<PublicState>);

struct PublicState {
    feedback: Feedback,
    requests: RequestMetrics,
}

impl PublicListener {
    /// The public listener over these services.
    pub fn new(feedback: Feedback) -> Self {
        Self(Arc::new(PublicState { feedback, requests: RequestMetrics::default() }))
    }
}

impl Respond for PublicListener {
    async fn respond(
        self,
        Peer(peer): Peer,
        _busy: BusyMark,
        request: Request<Incoming>,
    ) -> Response {
        let began = Instant::now();
        let PublicState { feedback, requests } = &*self.0;
        // The body is not read: the form of a one-click opt-out says nothing more.
        let (parts, _) = request.into_parts();
        let visit = || Visit::of(peer, &parts, &feedback.links.config.public.trusted_proxies);
        let requested = parse_path(parts.uri.path());
        let mut response = match &requested {
            None => pages::substitution(),
            Some((_, kind, token)) => match (kind, parts.method.as_str()) {
                (HitKind::OptOut, "POST") => Box::pin(opt_out(feedback, token, visit())).await,
                (HitKind::OptOut, "GET" | "HEAD") => Box::pin(opt_out_page(feedback, token)).await,
                (HitKind::Open, "GET" | "HEAD") => Box::pin(open(feedback, token, visit())).await,
                (HitKind::Click, "GET" | "HEAD") => Box::pin(click(feedback, token, visit())).await,
                (HitKind::Mirror, "GET" | "HEAD") => {
                    Box::pin(mirror(feedback, token, visit())).await
                }
                _ => pages::not_allowed(if *kind == HitKind::OptOut {
                    "GET,HEAD,POST"
                } else {
                    "GET,HEAD"
                }),
            },
        };
        add_answer_headers(&mut response);
        if let Some((_, kind, _)) = requested
            && response.status() == StatusCode::SERVICE_UNAVAILABLE
        {
            metrics::tracking_hit(kind.word(), "unrecorded");
        }
        let route = requested.map_or("none", |(route, ..)| route);
        requests.answered(
            route,
            method_label(&parts.method),
            response.status().as_u16(),
            began.elapsed(),
        );
        response
    }
}

/// The route of a path, the kind of hit, and the token.
fn parse_path(path: &str) -> Option<(&'static str, HitKind, Cow<'_, str>)> {
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
        Ok(()) | Err(LinkError::Forged | LinkError::Expired) => pages::pixel(),
        Err(miss) => refuse(feedback, miss),
    }
}

async fn click(feedback: &Feedback, token: &str, visit: Visit) -> Response {
    let target = async {
        let found = feedback.links.find(HitKind::Click, token).await?;
        // The target is found first, then the click is recorded, then the recipient is redirected.
        // Every recorded click therefore has a target. Each redirect of a click that counts is
        // recorded.
        let target = feedback.links.target_of(&found).await?;
        feedback.hits.record_hit(&found, visit).await?;
        Ok(target)
    };
    match target.await {
        Ok(target) => {
            pages::redirect(&target).unwrap_or_else(|| refuse(feedback, LinkError::Expired))
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
    html.await.map_or_else(|miss| refuse(feedback, miss), pages::mirror)
}

/// The page with the opt-out button. Scanners follow every link, so a GET must not opt anybody out.
async fn opt_out_page(feedback: &Feedback, token: &str) -> Response {
    feedback
        .links
        .find_opt_out(token)
        .await
        .map_or_else(|miss| refuse(feedback, miss), |_| pages::opt_out())
}

async fn opt_out(feedback: &Feedback, token: &str, visit: Visit) -> Response {
    let done = async {
        let found = feedback.links.find_opt_out(token).await?;
        feedback.denylist.opt_out(&found, token).await?;
        match &found {
            OptOutLink::Message(found) => feedback.hits.record_hit(found, visit).await,
            OptOutLink::Kept(_) => {
                metrics::tracking_hit(HitKind::OptOut.word(), "uncounted");
                Ok(())
            }
        }
    };
    // The answer must not be a redirect (RFC 8058, section 3.1).
    done.await.map_or_else(page, |()| pages::opted_out())
}

/// A harmless answer to a link that cannot be served: the substitution page, or `try again`.
fn refuse(feedback: &Feedback, miss: LinkError) -> Response {
    let substitution =
        Some(&feedback.links.config.public.substitution_url).filter(|url| !url.is_empty());
    let elsewhere = substitution
        .filter(|_| matches!(miss, LinkError::Forged | LinkError::Expired))
        .and_then(|url| pages::redirect(url));
    elsewhere.unwrap_or_else(|| page(miss))
}

/// The page for a link that cannot be served.
fn page(miss: LinkError) -> Response {
    match miss {
        LinkError::Forged | LinkError::Expired => pages::substitution(),
        LinkError::Unavailable(_) | LinkError::Unrecorded => pages::try_again(),
    }
}
