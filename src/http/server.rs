//! A server of its own for a router.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use axum::Router;
use tokio::sync::oneshot;

use super::connection::Capped;

/// Serves a router on a thread of its own until it is dropped: [`MAX_CONNECTIONS`](super::MAX_CONNECTIONS) at once, none of which may be
/// [silent](super::SILENCE) for long.
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
        // The timer too: a server that runs out of descriptors waits on it before it accepts again.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("rustkernel-http".to_owned()).spawn(move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    served = async { axum::serve(Capped::new(listener), router).await } => served,
                    // Dropped, not answered: that is the message.
                    _ = stopped => Ok(()),
                }
            });
            if let Err(error) = served {
                tracing::error!(%error, "the health endpoints are gone");
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
