//! The pages that recipients see: only the mirror page loads anything from elsewhere.
//!
//! No page sets a cookie. Every answer gets `no-store` (`answer_headers`): every hit must reach the
//! daemon.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

/// A transparent GIF of one pixel.
const PIXEL: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\
    !\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;";

/// The open pixel.
pub fn pixel() -> Response {
    ([(header::CONTENT_TYPE, "image/gif")], PIXEL).into_response()
}

/// A redirect to `target`; none if the target cannot stand in a header.
pub fn redirect(target: &str) -> Option<Response> {
    let location = HeaderValue::from_str(target).ok()?;
    let mut response = StatusCode::FOUND.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

/// A page with a title, without scripts and without anything from elsewhere.
fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title>\
         <style>body{{font:18px/1.5 system-ui,sans-serif;\
         max-width:32em;margin:4em auto;padding:0 1em}}\
         button{{font:inherit;padding:.4em 1em}}</style></head>\
         <body><h1>{title}</h1>{body}</body></html>\n"
    );
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
                  frame-ancestors 'none'; base-uri 'none'";
    (status, [(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}

/// The page for a link that is forged or too old, and for a path that is no route.
pub fn substitution() -> Response {
    page(StatusCode::NOT_FOUND, "This link does not work", "<p>It is incomplete, or too old.</p>")
}

/// The answer to a method that the route does not have.
pub fn not_allowed(allowed: &'static str) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allowed)]).into_response()
}

/// The page with the opt-out button.
pub fn opt_out() -> Response {
    let form = "<p>Press the button to get no more of these messages.</p>\
                <form method=\"post\"><button>Unsubscribe</button></form>";
    page(StatusCode::OK, "Unsubscribe", form)
}

/// The page after an opt-out.
pub fn opted_out() -> Response {
    page(StatusCode::OK, "Unsubscribed", "<p>You will get no more of these messages.</p>")
}

/// The page for a request that cannot be served just now, with status 503.
pub fn try_again() -> Response {
    let mut response = page(
        StatusCode::SERVICE_UNAVAILABLE,
        "Please try again",
        "<p>This did not work just now.</p>",
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The mirror page. The message may show pictures and styles, and cannot run scripts.
pub fn mirror(html: String) -> Response {
    let policy = "default-src 'none'; img-src http: https: data:; \
                  style-src 'unsafe-inline' http: https:; font-src http: https:; \
                  media-src http: https:; sandbox allow-popups allow-popups-to-escape-sandbox \
                  allow-top-navigation-by-user-activation; base-uri 'none'; \
                  form-action 'none'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}
