//! A server of its own for a router.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, oneshot};

/// Connections at once; the next one waits until one of them ends.
pub const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take, from the connection's begin or the answer before it.
pub const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Serves a router on a thread of its own until it is dropped: [`MAX_CONNECTIONS`] at once, none of which is waited for longer than
/// [`HEAD_LIMIT`]. On a loopback address it answers to that address's names only, so that no page of another site reaches it by a name
/// that leads here.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    /// Its end is the server's.
    _stop: oneshot::Sender<()>,
}

impl HealthServer {
    /// Binds `address`, whose port may be 0 for any free one, and serves `router` there.
    ///
    /// # Errors
    /// What the operating system says about the address or about the thread. Nothing is left behind.
    pub fn start(address: SocketAddr, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let router = if address.ip().is_loopback() { router.layer(from_fn(from_here)) } else { router };
        // The timer too: connections have their limits, and a server that runs out of descriptors waits before it accepts again.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("rustkernel-http".to_owned()).spawn(move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    () = serve(listener, router) => unreachable!("it never ends"),
                    // Dropped, not answered: that is the message.
                    _ = stopped => Ok::<(), io::Error>(()),
                }
            });
            if let Err(error) = served {
                tracing::error!(%error, "nothing is served any more");
            }
        })?;
        Ok(Self { address, _stop: stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "connections end with their server's runtime; its time is its own"
)]
async fn serve(listener: tokio::net::TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // There are no descriptors left, or the peer is gone: the next one may be well.
                tracing::debug!(%error, "a connection is not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let connection =
            http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            // Its errors are its peer's.
            let _ = connection.await;
            drop(place);
        });
    }
}

const PAUSE: Duration = Duration::from_millis(20);

/// Lets through what was meant for this machine by whoever sent it.
async fn from_here(request: Request, next: Next) -> Response {
    if names_here(request.headers()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "this node answers to localhost and its address\n").into_response()
}

fn names_here(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered_on_its_own_address() {
        let named = |host: &str| names_here(&[(header::HOST, host.parse().unwrap())].into_iter().collect());
        for here in ["localhost", "LOCALHOST:9470", "127.0.0.1", "127.0.0.1:9470", "[::1]:9470", "[::1]"] {
            assert!(named(here), "{here}");
        }
        for elsewhere in
            ["evil.example", "localhost.evil.example:80", "10.0.0.1:9470", "127.0.0.1.nip.io", ""]
        {
            assert!(!named(elsewhere), "{elsewhere}");
        }
        assert!(names_here(&HeaderMap::new()));
    }
}
