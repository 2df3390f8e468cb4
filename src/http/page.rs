//! The live page: a node's supervision tree, its failures, dead letters and health in a browser, with actions for whoever has the token.
//!
//! Its files are part of the program, without a build step and without anything from elsewhere, so that it works offline. It reads
//! what [`api_router`](super::api_router) serves and needs nothing else of the node. Its content security policy lets it load its own
//! files and talk to its own origin, and nothing more: names, reasons and errors on it come from users' kernels.

use axum::Router;
use axum::extract::OriginalUri;
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
/// Its links are relative, so that both can be [nested](Router::nest) below a prefix.
pub fn page_router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(page))
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/page.svg", get(|| async { file("image/svg+xml", ICON) }))
}

/// Below a prefix, what the page links to lies beyond its own path: it says so.
async fn page(OriginalUri(asked): OriginalUri) -> Response {
    let html = "text/html; charset=utf-8";
    let last = asked.path().rsplit('/').next().unwrap_or_default();
    if last.is_empty() {
        return file(html, PAGE);
    }
    let last = last.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let base = format!("<head>\n<base href=\"./{last}/\">");
    file(html, PAGE.replacen("<head>", &base, 1))
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

fn file(kind: &'static str, text: impl IntoResponse) -> Response {
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
     base-uri 'self'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use tower::ServiceExt;

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

    /// The book mounts it so, and what it linked to was not found.
    #[tokio::test]
    async fn below_a_prefix_it_finds_what_it_links_to() {
        let site = Router::<()>::new().nest("/ops/supervision", page_router());
        let get = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = site.clone().oneshot(request).await.unwrap();
            let status = answer.status();
            (
                status,
                String::from_utf8(to_bytes(answer.into_body(), MAX_BYTES).await.unwrap().into()).unwrap(),
            )
        };
        let (status, text) = get("/ops/supervision").await;
        assert!(status.is_success() && text.contains("<base href=\"./supervision/\">"), "{status} {text}");
        for linked in ["page.css", "page.js", "page.svg"] {
            assert!(text.contains(&format!("\"{linked}\"")));
            assert!(get(&format!("/ops/supervision/{linked}")).await.0.is_success());
        }
        let alone =
            page_router::<()>().oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        let text = to_bytes(alone.into_body(), MAX_BYTES).await.unwrap();
        assert_eq!(text, PAGE);
    }

    /// What a node carries along and sends at most.
    const MAX_BYTES: usize = 56 << 10;
}
