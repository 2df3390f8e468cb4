//! A server of its own for a router.

use std::future::ready;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustkernel_core::clock::Clock;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;

use super::peers::Peers;
use super::seats::{Answering, Seats};

/// Connections at once. One more takes the place of that which has said nothing for longest; where all of them are being answered, it waits.
pub const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take, from the connection's begin or the answer before it.
pub const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may stand still because nobody reads it.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long the answers that are under way may take when the server is closed.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Serves a router on a thread of its own until it is dropped: [`MAX_CONNECTIONS`] at once, none of which is waited for longer than
/// [`HEAD_LIMIT`] to say what it wants, or than [`WRITE_LIMIT`] to take some more of the answer. One address may ask [`REQUESTS_AT_ONCE`] times
/// at once and [`REQUESTS_PER_SECOND`] times a second, and is told 429 beyond; bare probes are always answered. Behind a proxy all are one
/// address. On a loopback address it answers to
/// that address's names only, so that no page of another site reaches it by a name that leads here.
///
/// [`REQUESTS_AT_ONCE`]: super::REQUESTS_AT_ONCE
/// [`REQUESTS_PER_SECOND`]: super::REQUESTS_PER_SECOND
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    /// Its end is the server's.
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl HealthServer {
    /// Binds `address`, whose port may be 0 for any free one, and serves `router` there. It has to be a loopback address: what is served
    /// elsewhere goes over TLS, or in the clear [for all to read](Self::start_in_the_clear).
    ///
    /// # Errors
    /// What the operating system says about the address or about the thread, or that the address is no loopback one. Nothing is left behind.
    pub fn start(address: SocketAddr, router: Router) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let why = format!("{address} is no loopback address: what is served there goes over TLS");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Self::start_as(address, router, Transport::Clear)
    }

    /// The same on any address, without TLS: whoever is on the way reads the answers and the token of actions. For a network that is one's own,
    /// or behind a proxy that ends TLS.
    ///
    /// # Errors
    /// What the operating system says about the address or about the thread.
    pub fn start_in_the_clear(address: SocketAddr, router: Router) -> io::Result<Self> {
        Self::start_as(address, router, Transport::Clear)
    }

    /// The same over TLS, as `https`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(feature = "tls")]
    pub fn start_tls(address: SocketAddr, router: Router, tls: super::Tls) -> io::Result<Self> {
        Self::start_as(address, router, Transport::Tls(Arc::new(tls)))
    }

    fn start_as(address: SocketAddr, router: Router, transport: Transport) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // The timer too: connections have their limits, and a server that runs out of descriptors waits before it accepts again.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serves = move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let open = GracefulShutdown::new();
                tokio::select! {
                    () = serve(listener, router, &transport, Limits::default(), &open) => unreachable!("it never ends"),
                    // Dropped, not answered: that is the message.
                    _ = stopped => {}
                }
                // Whoever watches does not come to an end by itself.
                let _ = timeout(CLOSE_LIMIT, open.shutdown()).await;
                Ok::<(), io::Error>(())
            });
            if let Err(error) = served {
                tracing::error!(%error, "nothing is served any more");
            }
        };
        let thread = thread::Builder::new().name("rustkernel-http".to_owned()).spawn(serves)?;
        Ok(Self { address, stop, thread })
    }

    /// Takes no more requests, and waits until those that it has are answered, for [`CLOSE_LIMIT`] at most. A dropped server does the same,
    /// and nobody waits for it.
    pub fn close(self) {
        let Self { stop, thread, .. } = self;
        drop(stop);
        // It has said so if it panicked.
        let _ = thread.join();
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What a connection is before it is HTTP.
enum Transport {
    Clear,
    #[cfg(feature = "tls")]
    Tls(Arc<super::Tls>),
}

/// For how long nobody is waited for.
#[derive(Clone, Debug)]
struct Limits {
    /// For how often one address may ask; what lasts is timed by the server's own runtime.
    clock: Clock,
    connections: usize,
    head: Duration,
    write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { clock: Clock::system(), connections: MAX_CONNECTIONS, head: HEAD_LIMIT, write: WRITE_LIMIT }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "connections end with their server's runtime; its time is its own"
)]
async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    transport: &Transport,
    limits: Limits,
    open: &GracefulShutdown,
) {
    let seats = Seats::new(limits.connections);
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let peers = Arc::new(Peers::new(limits.clock));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // There are no descriptors left, or the peer is gone: the next one may be well.
                tracing::debug!(%error, "a connection is not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let seat = seats.take().await;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write));
        let stream = Box::pin(stream);
        let http = http.clone();
        let (answers, place, peers) =
            (TowerToHyperService::new(router.clone()), seat.clone(), Arc::clone(&peers));
        let service = service_fn(move |request: hyper::Request<_>| {
            let busy = place.busy();
            // Who is not meant to be here is refused whatever it asks, and uses up nobody's share.
            let is_for_us = !is_local || names_here(request.headers());
            let answer = if !is_for_us {
                Either::Right(ready(Ok(not_here())))
            } else if peers.admit(peer.ip(), &request) {
                Either::Left(answers.call(request))
            } else {
                Either::Right(ready(Ok(too_many())))
            };
            async move { answer.await.map(|answer| answer.map(|body| Answering { body, _busy: busy })) }
        });
        let open = open.watcher();
        // Errors of a connection are its peer's.
        match transport {
            Transport::Clear => tokio::spawn(async move {
                let served = open.watch(http.serve_connection(TokioIo::new(stream), service));
                seat.while_wanted(served).await;
            }),
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => {
                let acceptor = tls.acceptor();
                tokio::spawn(async move {
                    let served = async {
                        if let Ok(Ok(stream)) = timeout(limits.head, acceptor.accept(stream)).await {
                            let _ = open.watch(http.serve_connection(TokioIo::new(stream), service)).await;
                        }
                    };
                    seat.while_wanted(served).await;
                })
            }
        };
    }
}

fn too_many() -> Response {
    let soon = [(header::RETRY_AFTER, "1")];
    (StatusCode::TOO_MANY_REQUESTS, soon, "this address asks too often: try again in a second\n")
        .into_response()
}

const PAUSE: Duration = Duration::from_millis(20);

fn not_here() -> Response {
    (StatusCode::FORBIDDEN, "this node answers to localhost and its address\n").into_response()
}

/// Whether whoever sent it meant this machine.
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
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;

    use axum::body::{Body, Bytes};
    use axum::routing::get;

    use super::super::REQUESTS_AT_ONCE;
    use super::*;

    /// Sixteen that watched and did not read kept everybody else from watching, for ever.
    #[tokio::test]
    async fn whoever_takes_no_answer_is_left() {
        struct Answer(tokio::sync::mpsc::Sender<()>);
        impl Drop for Answer {
            fn drop(&mut self) {
                self.0.try_send(()).unwrap();
            }
        }
        let (held, mut left) = tokio::sync::mpsc::channel(1);
        let endless = move || {
            let answer = Answer(held.clone());
            let parts = futures_util::stream::repeat_with(move || {
                let Answer(_) = &answer;
                Ok::<_, io::Error>(Bytes::from_static(&[b'x'; 4096]))
            });
            async { Body::from_stream(parts) }
        };
        let router = Router::new().route("/", get(endless));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut deaf = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        deaf.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let limits = Limits { write: Duration::from_millis(20), ..Limits::default() };
        let open = GracefulShutdown::new();
        tokio::select! {
            () = serve(listener, router, &Transport::Clear, limits, &open) => {}
            gone = left.recv() => assert_eq!(gone, Some(())),
        }
    }

    /// Those who were silent kept everybody else out for ten seconds, or for ever where each asked now and then.
    #[tokio::test]
    async fn the_silent_make_room_and_those_who_are_answered_do_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let endless = move || {
            begun.send(()).unwrap();
            async { Body::from_stream(futures_util::stream::pending::<io::Result<Bytes>>()) }
        };
        let router = Router::new().route("/", get(async || "here")).route("/endless", get(endless));
        let asks = move |path: &'static str| {
            tokio::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
                stream
            })
        };
        let hears = |mut stream: TcpStream| {
            tokio::task::spawn_blocking(move || {
                let mut head = [0; 12];
                stream.read_exact(&mut head).unwrap();
                (head.ends_with(b"200"), stream)
            })
        };
        let tried = async {
            let two = [asks("/endless").await.unwrap(), asks("/endless").await.unwrap()];
            begins.recv().await.unwrap();
            begins.recv().await.unwrap();
            for _ in 0..50 {
                // Some of them have been answered, and stay.
                let silent =
                    tokio::task::spawn_blocking(move || TcpStream::connect(address).unwrap()).await.unwrap();
                let (answered, stays) = hears(asks("/").await.unwrap()).await.unwrap();
                assert!(answered);
                std::mem::forget((silent, stays));
            }
            let more = [asks("/endless").await.unwrap(), asks("/endless").await.unwrap()];
            begins.recv().await.unwrap();
            begins.recv().await.unwrap();
            let late = asks("/").await.unwrap();
            late.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let early = (&late).read(&mut [0; 1]).unwrap_err();
            assert_eq!(early.kind(), io::ErrorKind::WouldBlock, "all four are being answered");
            late.set_read_timeout(None).unwrap();
            drop(two);
            assert!(hears(late).await.unwrap().0);
            drop(more);
        };
        // Nobody leaves by the lapse of time.
        let limits = Limits { connections: 4, head: Duration::from_secs(3_600), ..Limits::default() };
        let open = GracefulShutdown::new();
        tokio::select! {
            () = serve(listener, router, &Transport::Clear, limits, &open) => {}
            tried = timeout(Duration::from_secs(20), tried) => tried.unwrap(),
        }
    }

    #[tokio::test]
    async fn whoever_does_not_say_what_it_wants_is_left() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = tokio::task::spawn_blocking(move || {
            for head in ["", "GET / HTT", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(head.as_bytes()).unwrap();
                // An end or a reset: either is one.
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        let limits = Limits { head: Duration::from_millis(20), ..Limits::default() };
        let open = GracefulShutdown::new();
        tokio::select! {
            () = serve(listener, Router::new(), &Transport::Clear, limits, &open) => {}
            left = silent => left.unwrap(),
        }
    }

    /// Who had a node drained was told by a connection reset that it had been done.
    #[test]
    fn a_server_that_is_closed_answers_what_it_has_and_takes_no_more() {
        let (arrived, arrives) = mpsc::channel();
        let gate = Arc::new(tokio::sync::Notify::new());
        let patient = {
            let gate = Arc::clone(&gate);
            move || {
                arrived.send(()).unwrap();
                let gate = Arc::clone(&gate);
                async move {
                    gate.notified().await;
                    "done"
                }
            }
        };
        let router = Router::new().route("/", get(patient));
        let server = HealthServer::start("127.0.0.1:0".parse().unwrap(), router).unwrap();
        let address = server.address();
        let mut asks = TcpStream::connect(address).unwrap();
        asks.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        arrives.recv().unwrap();
        let closing = thread::spawn(move || server.close());
        while TcpStream::connect(address).is_ok() {
            thread::yield_now();
        }
        gate.notify_one();
        let mut answer = String::new();
        asks.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        closing.join().unwrap();
    }

    #[tokio::test]
    async fn an_address_that_asks_too_often_is_told_so_and_its_probes_are_answered() {
        let router = Router::new().route("/", get(async || "here")).route("/livez", get(async || "live"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let asked = tokio::task::spawn_blocking(move || {
            let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let last = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            // What is not meant for this node uses up nothing.
            let strange = ask("/").replace("localhost", "evil.example").repeat(REQUESTS_AT_ONCE as usize);
            let all = strange + &ask("/").repeat(REQUESTS_AT_ONCE as usize) + &ask("/") + last;
            let mut writer = stream.try_clone().unwrap();
            let writes = thread::spawn(move || writer.write_all(all.as_bytes()));
            let mut answers = String::new();
            stream.read_to_string(&mut answers).unwrap();
            writes.join().unwrap().unwrap();
            answers
        });
        let (clock, _hand) = Clock::manual();
        let limits = Limits { clock, ..Limits::default() };
        let open = GracefulShutdown::new();
        let answers = tokio::select! {
            () = serve(listener, router, &Transport::Clear, limits, &open) => unreachable!("it never ends"),
            answers = asked => answers.unwrap(),
        };
        assert_eq!(answers.matches("HTTP/1.1 403 ").count(), REQUESTS_AT_ONCE as usize);
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), REQUESTS_AT_ONCE as usize + 1);
        let (_, refused) = answers.split_once("HTTP/1.1 429 ").unwrap();
        assert!(refused.contains("retry-after: 1\r\n") && refused.contains("asks too often"), "{refused}");
        assert!(refused.ends_with("live"), "{refused}");
    }

    #[test]
    fn nothing_is_served_in_the_clear_elsewhere_unless_it_is_said() {
        let everywhere = "0.0.0.0:0".parse().unwrap();
        let refused = HealthServer::start(everywhere, Router::new()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        HealthServer::start_in_the_clear(everywhere, Router::new()).unwrap().close();
    }

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
