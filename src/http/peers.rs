//! How often one address may ask.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, Request};
use rustkernel_core::clock::Clock;
use rustkernel_core::rate_limit::{RateDecision, RateLimit};

/// Requests of one address that may come at once. The addresses of a machine's own loopback are one, and so are those of an IPv6 network of
/// 64 bits, of which whoever has one has them all; link-local and unique local ones are told apart.
pub const REQUESTS_AT_ONCE: u32 = 400;
/// Requests of one address that may come in a second in the long run: a snapshot is made ten times a second at most, whoever asks.
pub const REQUESTS_PER_SECOND: u32 = 200;

/// Addresses that are told apart; those that come while as many have asked just now are taken for one.
const MAX_PEERS: usize = 1024;

/// Who has asked how often.
pub(super) struct Peers {
    clock: Clock,
    limits: Mutex<HashMap<IpAddr, RateLimit>>,
}

impl Peers {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, limits: Mutex::default() }
    }

    /// Whether this request is answered. A bare probe is never refused, because whoever gets no answer kills the node, and what needs the token
    /// has [its own limit](super::PER_SECOND): nobody is kept from either by a neighbour, wherever the routes are nested.
    pub(super) fn admit<B>(&self, peer: IpAddr, request: &Request<B>) -> bool {
        let (path, has_query) = (request.uri().path(), request.uri().query().is_some());
        let is_probe = !has_query && PROBES.iter().any(|probe| path.contains(probe));
        if is_probe || (request.method() == Method::POST && path.ends_with("/v1/actions")) {
            return true;
        }
        let now = self.clock.now();
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peer = network(peer);
        if limits.len() >= MAX_PEERS && !limits.contains_key(&peer) {
            limits.retain(|_, limit| !limit.is_full(now));
            if limits.len() >= MAX_PEERS {
                peer = OTHERS;
            }
        }
        // Neither is zero.
        let new = || {
            RateLimit::try_new(REQUESTS_AT_ONCE, Duration::from_secs(1) / REQUESTS_PER_SECOND)
                .unwrap_or_default()
        };
        limits.entry(peer).or_insert_with(new).allow(now) != RateDecision::Refuse
    }
}

const PROBES: [&str; 6] = ["/livez", "/readyz", "/startupz", "/health/", "/v2/health/", "/v2/models/"];
/// Nobody's own address.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn network(peer: IpAddr) -> IpAddr {
    let peer = peer.to_canonical();
    if peer.is_loopback() {
        return IpAddr::V4(Ipv4Addr::LOCALHOST);
    }
    match peer {
        IpAddr::V6(address) if !address.is_unicast_link_local() && !address.is_unique_local() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))
        }
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn who_asks_too_often_waits_and_others_and_probes_do_not() {
        let (clock, hand) = Clock::manual();
        let peers = Peers::new(clock);
        let [one, other]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let get = |path: &str| Request::get(path).body(()).unwrap();
        let admitted = |count| (0..count).filter(|_| peers.admit(one, &get("/v1/snapshot"))).count();
        assert_eq!(admitted(1_000), 400);
        assert!(peers.admit(other, &get("/v1/snapshot")));
        for path in ["/livez", "/readyz/graph/pagerank", "/ops/health/ready", "/v2/health/live"] {
            assert!(peers.admit(one, &get(path)), "{path}");
        }
        assert!(peers.admit(one, &Request::post("/v1/actions").body(()).unwrap()));
        for path in [
            "/",
            "/metrics",
            "/health",
            "/v1/events",
            "/nowhere",
            "/v1/actions",
            "/readyz?verbose",
            "/livez?",
        ] {
            assert!(!peers.admit(one, &get(path)), "{path}");
        }
        hand.advance(Duration::from_secs(1));
        assert_eq!(admitted(1_000), 200);
    }

    #[test]
    fn a_network_is_one_peer_and_so_are_those_who_are_too_many() {
        let (clock, hand) = Clock::manual();
        let peers = Peers::new(clock);
        let get = || Request::get("/").body(()).unwrap();
        let admitted = |peers: &Peers, peer: &dyn Fn(u32) -> IpAddr, count| {
            (0..count).filter(|index| peers.admit(peer(*index), &get())).count()
        };
        let host = |index| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(index)));
        assert_eq!(admitted(&peers, &host, 1_000), 400);
        assert_eq!(peers.limits.lock().unwrap().len(), 1);
        let stranger = |index| IpAddr::V6(Ipv6Addr::from_bits(u128::from(index + 1) << 64));
        assert_eq!(admitted(&peers, &stranger, 5_000), MAX_PEERS - 1 + 400);
        assert_eq!(peers.limits.lock().unwrap().len(), MAX_PEERS + 1, "and one for all others");
        let neighbours =
            ["fe80::1", "fe80::2", "fd00::1", "fd00::2", "::1"].map(|text| network(text.parse().unwrap()));
        assert_eq!(HashSet::from(neighbours).len(), 5);
        assert_eq!(network("127.0.0.9".parse().unwrap()), network("::1".parse().unwrap()));
        hand.advance(Duration::from_secs(3));
        assert!(peers.admit("10.0.0.3".parse().unwrap(), &get()));
        assert_eq!(peers.limits.lock().unwrap().len(), 1, "who has not asked for long is forgotten");
    }
}
