//! The live page: a node's supervision tree, its failures, dead letters and health in a browser, with actions for whoever has the token.
//!
//! Its files are part of the program, without a build step and without anything from elsewhere, so that it works offline. It reads
//! what [`api_router`](super::api_router) serves and needs nothing else of the node. Its content security policy lets it load its own
//! files and talk to its own origin, and nothing more: names, reasons and errors on it come from users' kernels.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The live page at `/`, beside the paths of [`api_router`](super::api_router), which it reads.
///
/// | path | |
/// |---|---|
/// | `GET /` | the page |
/// | `GET /page.css`, `/page.js`, `/page.svg` | what it loads |
///
/// Its links are relative, so that both can be nested below a prefix that ends with a slash.
pub fn page_router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", PAGE) }))
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/page.svg", get(|| async { file("image/svg+xml", ICON) }))
}

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One script of several files, which share their names: first what the others begin with.
const SCRIPT: &str = concat!(
    include_str!("page/text.js"),
    include_str!("page/columns.js"),
    include_str!("page/tree.js"),
    include_str!("page/panel.js"),
    include_str!("page/actions.js"),
    include_str!("page/page.js"),
);
const ICON: &str = include_str!("page/page.svg");

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        // A node that was replaced by a newer one must not be shown by the older one's script.
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

/// No inline script or style, no other origin, no frame around it: a page that can restart kernels must not be clicked through another one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_comes_with_its_type_and_the_policy() {
        for (kind, text) in [("text/html; charset=utf-8", PAGE), ("text/javascript; charset=utf-8", SCRIPT)] {
            let answer = file(kind, text);
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("content-type"), kind);
            assert_eq!(header("cache-control"), "no-store");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "no-referrer");
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
        }
    }

    /// The policy would block what is inline, and nobody would be told. What comes from kernels is text, and the token stays in memory.
    #[test]
    fn the_page_has_nothing_inline_and_nothing_from_elsewhere() {
        for inline in ["<style", "style=", "onclick=", "<script>", "http:", "https:", "//"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        assert!(!STYLE.contains("url("));
        for markup in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "Storage", "cookie"] {
            assert!(!SCRIPT.contains(markup), "{markup}");
        }
        assert!([PAGE, STYLE, SCRIPT, ICON].iter().all(|text| text.is_ascii()));
        let size: usize = [PAGE, STYLE, SCRIPT, ICON].iter().map(|text| text.len()).sum();
        assert!(size < MAX_BYTES, "{size}");
    }

    /// What a node carries along and sends at most.
    const MAX_BYTES: usize = 56 << 10;
}
