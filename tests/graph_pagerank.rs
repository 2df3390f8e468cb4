//! PageRank through the public API, against published values and against networkx.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use proptest::prelude::*;

use rustkernel::core::clock::{Clock, Timestamp};
use rustkernel::core::codec;
use rustkernel::core::envelope::Header;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel, Payload, Signal};
use rustkernel::kernels::graph::pagerank::PageRankError;
use rustkernel::kernels::graph::{
    EdgeListSource, Graph, Load, PageRank, PageRankConfig, PageRankState, Ranking, TopK, TopKConfig,
};

const KARATE: &str = include_str!("../data/karate.txt");

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn load(source: &EdgeListSource) -> Graph {
    block_on(Load::default().execute(source, &mut Context::detached())).unwrap()
}

fn karate() -> Graph {
    load(&EdgeListSource::Text(KARATE.into()))
}

fn kernel(tolerance: f64) -> PageRank {
    PageRank::new(PageRankConfig { tolerance, ..PageRankConfig::default() }).unwrap()
}

fn iterate(kernel: &mut PageRank, state: &PageRankState) -> PageRankState {
    block_on(kernel.execute(state, &mut Context::detached())).unwrap()
}

fn converge(graph: Graph, tolerance: f64) -> PageRankState {
    let mut kernel = kernel(tolerance);
    let mut state = PageRankState::start(graph);
    while !state.is_converged(tolerance) {
        assert!(state.iteration() < 1000, "no convergence");
        state = iterate(&mut kernel, &state);
    }
    state
}

fn top(state: &PageRankState, k: usize) -> Ranking {
    let mut kernel = TopK::new(&TopKConfig { k }).unwrap();
    block_on(kernel.execute(state, &mut Context::detached())).unwrap()
}

fn assert_matches_reference(state: &PageRankState, file: &str) {
    let path = format!("{}/data/{file}", env!("CARGO_MANIFEST_DIR"));
    let reference: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let expected = reference["top"].as_array().unwrap();
    let ranking = top(state, expected.len());
    assert_eq!(ranking.nodes as u64, reference["nodes"].as_u64().unwrap());
    assert_eq!(ranking.edges as u64, reference["edges"].as_u64().unwrap());
    assert_eq!(ranking.entries.len(), expected.len());
    for (place, (entry, expected)) in ranking.entries.iter().zip(expected).enumerate() {
        let rank = expected["rank"].as_f64().unwrap();
        assert!((entry.rank - rank).abs() < 1e-9, "place {place}: {entry:?}, expected {expected}");
        let tied = ranking
            .entries
            .iter()
            .any(|other| other.id != entry.id && (other.rank - entry.rank).abs() < 1e-11);
        assert!(
            tied || Some(entry.id) == expected["id"].as_u64(),
            "place {place}: {entry:?}, expected {expected}"
        );
    }
    let squares: f64 = state.ranks().iter().map(|rank| rank * rank).sum();
    assert!((squares - reference["rank_square_sum"].as_f64().unwrap()).abs() < 1e-9);
}

/// The values that igraph's `page_rank` prints for its "Zachary" graph with damping 0.85, as course material and
/// test suites publish them to nine digits; networkx and scikit-network's tests agree. Nodes 1 to 34.
const PUBLISHED_KARATE: [f64; 34] = [
    0.096997285,
    0.052876924,
    0.057078509,
    0.035859858,
    0.021977952,
    0.029111155,
    0.029111155,
    0.024490497,
    0.029766056,
    0.014309397,
    0.021977952,
    0.009564745,
    0.014644892,
    0.029536456,
    0.014535994,
    0.014535994,
    0.016784005,
    0.014558677,
    0.014535994,
    0.019604636,
    0.014535994,
    0.014558677,
    0.014535994,
    0.031522515,
    0.021076034,
    0.021006197,
    0.015044038,
    0.025639767,
    0.019573459,
    0.026288538,
    0.024590155,
    0.037158087,
    0.071693226,
    0.100919182,
];

#[test]
fn the_karate_club_has_its_published_ranks() {
    let state = converge(karate(), 1e-12);
    assert_eq!(state.graph().ids(), (1..=34).collect::<Vec<u64>>());
    for (node, (rank, published)) in state.ranks().iter().zip(PUBLISHED_KARATE).enumerate() {
        assert!((rank - published).abs() < 1e-9, "node {}: {rank}, published {published}", node + 1);
    }
    let first: Vec<u64> = top(&state, 3).entries.iter().map(|entry| entry.id).collect();
    assert_eq!(first, [34, 1, 33], "the administrator and the instructor lead");
}

#[test]
fn the_karate_club_matches_networkx() {
    assert_matches_reference(&converge(karate(), 1e-12), "karate-pagerank.reference.json");
}

#[test]
fn debians_graph_matches_networkx_in_order_and_value() {
    let state = converge(load(&EdgeListSource::Shipped), 1e-12);
    assert_matches_reference(&state, "debian-pagerank.reference.json");
    let sum: f64 = state.ranks().iter().sum();
    assert!((sum - 1.0).abs() < 1e-12, "3567 dangling nodes keep their mass in: {sum}");
}

#[test]
fn the_ranks_add_up_to_one_in_every_iteration_with_dangling_nodes() {
    let mut kernel = kernel(1e-12);
    let mut state = PageRankState::start(Graph::from_edges(vec![(1, 2), (1, 3), (4, 1), (4, 4)]).unwrap());
    for _ in 0..200 {
        state = iterate(&mut kernel, &state);
        let sum: f64 = state.ranks().iter().sum();
        assert!((sum - 1.0).abs() < 1e-12, "iteration {}: {sum}", state.iteration());
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    let bits = |state: &PageRankState| state.ranks().iter().map(|rank| rank.to_bits()).collect::<Vec<_>>();
    let one = converge(load(&EdgeListSource::Shipped), 1e-6);
    let other = converge(load(&EdgeListSource::Shipped), 1e-6);
    assert_eq!(bits(&one), bits(&other));
    assert_eq!(one.delta().to_bits(), other.delta().to_bits());
    let mut lines: Vec<&str> = KARATE.lines().collect();
    lines.reverse();
    let reversed = converge(load(&EdgeListSource::Text(lines.join("\n").into())), 1e-12);
    assert_eq!(bits(&converge(karate(), 1e-12)), bits(&reversed), "the order of lines does not matter");
}

#[test]
fn a_state_within_the_tolerance_comes_back_as_it_is() {
    let state = converge(karate(), 1e-6);
    assert_eq!(iterate(&mut kernel(1e-6), &state), state);
    assert_eq!(iterate(&mut kernel(1e-12), &state).iteration(), state.iteration() + 1);
}

#[test]
fn a_restored_kernel_answers_the_request_it_had_answered_without_computing() {
    let mut before = kernel(1e-12);
    let first = iterate(&mut before, &PageRankState::start(karate()));
    let second = iterate(&mut before, &first);
    let checkpoint = block_on(before.checkpoint()).unwrap();
    let bytes = codec::encode(&checkpoint).unwrap();

    let mut after = kernel(1e-12);
    block_on(after.restore(codec::decode(&bytes).unwrap())).unwrap();
    assert_eq!(iterate(&mut after, &first), second);
    assert_eq!(after.reused(), 1);
    assert_eq!(iterate(&mut after, &second), iterate(&mut before, &second));
    assert_eq!(after.reused(), 1, "the next request is new work");
}

#[test]
fn another_request_is_never_answered_from_memory() {
    let mut kernel = kernel(1e-12);
    let start = PageRankState::start(karate());
    let first = iterate(&mut kernel, &start);
    let nudged: Arc<[f64]> = start.ranks().iter().map(|rank| rank * 1.5).collect();
    let other_ranks = PageRankState::new(karate(), nudged, 0, 2.0).unwrap();
    assert_ne!(iterate(&mut kernel, &other_ranks), first);
    let other_iteration = PageRankState::new(karate(), start.ranks().into(), 7, 2.0).unwrap();
    assert_eq!(iterate(&mut kernel, &other_iteration).iteration(), 8);
    let edges = KARATE.replace("1\t2\n", "1\t34\n");
    let other_graph = PageRankState::start(load(&EdgeListSource::Text(edges.into())));
    assert_ne!(iterate(&mut kernel, &other_graph).ranks(), first.ranks());
    assert_eq!(kernel.reused(), 0);

    let checkpoint = block_on(kernel.checkpoint()).unwrap();
    let config = PageRankConfig { damping: 0.5, ..PageRankConfig::default() };
    let mut other_damping = PageRank::new(config).unwrap();
    block_on(other_damping.restore(checkpoint)).unwrap();
    iterate(&mut other_damping, &other_graph);
    assert_eq!(other_damping.reused(), 0);
}

#[test]
fn a_kernel_without_answers_has_nothing_to_keep() {
    let mut kernel = kernel(1e-12);
    assert_eq!(block_on(kernel.checkpoint()).unwrap(), None);
    block_on(kernel.restore(None)).unwrap();
    iterate(&mut kernel, &PageRankState::start(karate()));
    let checkpoint = block_on(kernel.checkpoint()).unwrap().unwrap();
    assert_eq!((checkpoint.iteration(), checkpoint.graph()), (1, karate().fingerprint()));
}

#[test]
fn cancelled_work_ends_and_leaves_nothing() {
    let (clock, _hands) = Clock::manual();
    let stop = Signal::new();
    stop.raise();
    let mut kernel = kernel(1e-12);
    let start = PageRankState::start(load(&EdgeListSource::Shipped));
    let mut cx = Context::new(Header::new(1, Timestamp::NEVER), 1, &clock, [&stop; 2]);
    let error = block_on(kernel.execute(&start, &mut cx)).unwrap_err();
    assert_eq!(error.kind(), &KernelErrorKind::Cancelled);
    let lowered = Signal::new();
    let mut cx = Context::new(Header::new(1, Timestamp::ZERO), 1, &clock, [&lowered; 2]);
    let error = block_on(kernel.execute(&start, &mut cx)).unwrap_err();
    assert_eq!(error.kind(), &KernelErrorKind::DeadlineExceeded);
    assert_eq!(block_on(kernel.checkpoint()).unwrap(), None);
}

#[test]
fn a_configuration_out_of_range_names_its_field() {
    for damping in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
        let error = PageRank::new(PageRankConfig { damping, ..PageRankConfig::default() }).unwrap_err();
        assert!(matches!(error, PageRankError::Damping { .. }) && error.to_string().starts_with("damping: "));
    }
    for tolerance in [0.0, -1e-9, f64::NAN, f64::INFINITY] {
        let error = PageRank::new(PageRankConfig { tolerance, ..PageRankConfig::default() }).unwrap_err();
        assert!(
            matches!(error, PageRankError::Tolerance { .. }) && error.to_string().starts_with("tolerance: ")
        );
    }
    assert!(serde_json::from_str::<PageRankConfig>(r#"{"dampening": 0.85}"#).is_err());
    assert!(serde_json::from_str::<TopKConfig>(r#"{"n": 3}"#).is_err());
    assert!(TopK::new(&TopKConfig { k: 0 }).unwrap_err().to_string().starts_with("k: "));
}

#[test]
fn a_ranking_says_what_it_ranks_and_survives_encoding() {
    let state = converge(karate(), 1e-9);
    let ranking = top(&state, 1000);
    assert_eq!((ranking.entries.len(), ranking.nodes, ranking.edges), (34, 34, 156));
    assert_eq!(ranking.iterations, state.iteration());
    assert!(ranking.delta <= 1e-9 && ranking.size_bytes() >= 34 * 16);
    assert_eq!(codec::decode::<Ranking>(&codec::encode(&ranking).unwrap()).unwrap(), ranking);
    let tied: Vec<u64> = ranking
        .entries
        .windows(2)
        .filter(|two| two[0].rank.to_bits() == two[1].rank.to_bits())
        .map(|two| two[0].id)
        .collect();
    assert!(
        ranking.entries.windows(2).all(|two| two[0].rank > two[1].rank || two[0].id < two[1].id),
        "{tied:?}"
    );
}

#[test]
fn stages_are_matched_by_these_schemas() {
    assert_eq!(Graph::schema(), "graph");
    assert_eq!(PageRankState::schema(), "graph/ranks");
    assert_eq!(Ranking::schema(), "graph/ranking");
    let state = PageRankState::start(karate());
    assert!(state.size_bytes() >= state.graph().size_bytes() + 34 * 8);
    for name in [Load::NAME, PageRank::NAME, TopK::NAME] {
        assert_eq!(rustkernel::core::KernelId::new(name).unwrap().family(), "graph");
    }
}

#[test]
fn the_shipped_names_fit_the_shipped_graph() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/debian-names.txt.gz");
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names: BTreeMap<u64, &str> = lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(id, name)| (id.parse().unwrap(), name))
        .collect();
    let state = converge(load(&EdgeListSource::Shipped), 1e-6);
    assert!(state.graph().ids().iter().all(|id| names.contains_key(id)));
    let first: Vec<&str> = top(&state, 3).entries.iter().map(|entry| names[&entry.id]).collect();
    assert_eq!(first, ["libc6", "libgcc-s1", "gcc-12-base"]);
}

/// The textbook form: the whole transition matrix, pushed row by row.
fn dense_iteration(graph: &Graph, ranks: &[f64], damping: f64) -> Vec<f64> {
    let nodes = graph.node_count();
    let mut follows = vec![vec![0.0; nodes]; nodes];
    for (to, row) in graph.in_edges().enumerate() {
        row.iter().for_each(|from| follows[*from as usize][to] = 1.0);
    }
    let mut next = vec![(1.0 - damping) / nodes as f64; nodes];
    for (row, rank) in follows.iter().zip(ranks) {
        let degree: f64 = row.iter().sum();
        for (to, edge) in row.iter().enumerate() {
            next[to] += damping * rank * if degree > 0.0 { edge / degree } else { 1.0 / nodes as f64 };
        }
    }
    next
}

proptest! {
    #[test]
    fn sparse_iterations_agree_with_the_dense_textbook_form(
        edges in prop::collection::vec((0_u64..12, 0_u64..12), 1..60),
        damping in 0.01_f64..0.99,
    ) {
        let mut kernel = PageRank::new(PageRankConfig { damping, tolerance: 1e-15 }).unwrap();
        let mut state = PageRankState::start(Graph::from_edges(edges).unwrap());
        for _ in 0..5 {
            let expected = dense_iteration(state.graph(), state.ranks(), damping);
            let next = iterate(&mut kernel, &state);
            let apart = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<f64>();
            prop_assert!(apart(next.ranks(), &expected) < 1e-13);
            prop_assert!((apart(next.ranks(), state.ranks()) - next.delta()).abs() < 1e-13 || next == state);
            prop_assert!((next.ranks().iter().sum::<f64>() - 1.0).abs() < 1e-12);
            state = next;
        }
    }
}
