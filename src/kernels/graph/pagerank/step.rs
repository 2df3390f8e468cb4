//! One power iteration.

use super::PageRankState;

/// The ranks after `state`, and how far they moved in L1 norm; `None` when `cancelled` said so on the way.
pub(super) fn step(
    state: &PageRankState,
    damping: f64,
    cancelled: impl Fn() -> bool,
) -> Option<(Vec<f64>, f64)> {
    let graph = state.graph();
    let nodes = graph.node_count() as f64;
    let (shares, dangling) = shares(state);
    let base = (1.0 - damping + damping * dangling) / nodes;
    let mut ranks = Vec::with_capacity(shares.len());
    let mut delta = 0.0;
    let mut left = EDGES_BETWEEN_CHECKS;
    for (sources, old) in graph.in_edges().zip(state.ranks()) {
        let mut sum = 0.0;
        let mut rest = sources;
        while let Some((piece, behind)) = rest.split_at_checked(left) {
            if cancelled() {
                return None;
            }
            sum = pull(sum, piece, &shares);
            rest = behind;
            left = EDGES_BETWEEN_CHECKS;
        }
        sum = pull(sum, rest, &shares);
        left -= rest.len();
        let rank = base + damping * sum;
        delta += (rank - old).abs();
        ranks.push(rank);
    }
    Some((ranks, delta))
}

/// What each node gives along each of its out-edges, and the mass of the nodes that have none.
fn shares(state: &PageRankState) -> (Vec<f64>, f64) {
    let mut dangling = 0.0;
    let shares = state.ranks().iter().zip(state.graph().out_degrees()).map(|(rank, degree)| match degree {
        0 => {
            dangling += rank;
            0.0
        }
        degree => rank / f64::from(*degree),
    });
    let shares = shares.collect();
    (shares, dangling)
}

fn pull(sum: f64, sources: &[u32], shares: &[f64]) -> f64 {
    sources.iter().fold(sum, |sum, source| sum + shares[*source as usize])
}

const EDGES_BETWEEN_CHECKS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::kernels::graph::Graph;

    #[test]
    fn a_pair_with_a_dangling_end_is_ranked_by_hand() {
        let state = PageRankState::start(Graph::from_edges(vec![(1, 2)]).unwrap());
        let (ranks, delta) = step(&state, 0.5, || false).unwrap();
        // Base: (0.5 + 0.5 * 0.5) / 2 = 0.375; node 2 also pulls 0.5 * 0.5.
        assert_eq!(ranks, [0.375, 0.625]);
        assert_eq!(delta.to_bits(), 0.25_f64.to_bits());
    }

    #[test]
    fn a_row_longer_than_a_piece_is_checked_inside_and_summed_in_the_same_order() {
        let leaves = 3 * EDGES_BETWEEN_CHECKS as u64 + 5;
        let state =
            PageRankState::start(Graph::from_edges((1..=leaves).map(|leaf| (leaf, 0)).collect()).unwrap());
        let asked = Cell::new(0);
        let count = || {
            asked.set(asked.get() + 1);
            false
        };
        let (ranks, _) = step(&state, 0.85, count).unwrap();
        assert_eq!(asked.get(), 3);
        let sum = (0..leaves).fold(0.0, |sum, _| sum + state.ranks()[0]);
        let base = (1.0 - 0.85 + 0.85 * state.ranks()[0]) / (leaves + 1) as f64;
        assert_eq!(ranks[0].to_bits(), (base + 0.85 * sum).to_bits());
        assert_eq!(step(&state, 0.85, || true), None);
    }
}
