//! The four kernels of one PageRank iteration. Where each block gives a part of a sum, the first one gives
//! all of it here, and the others 0.

use crate::code::Answer;
use crate::launch::{Array, Launch};

/// `(ranks, out_degrees, shares, dangling, nodes)`
pub(crate) fn shares(launch: &Launch) -> Answer {
    let nodes = launch.count(4);
    let ranks = launch.array::<f64>(0, nodes)?;
    let out_degrees = launch.array::<u32>(1, nodes)?;
    let shares = launch.array::<f64>(2, nodes)?;
    let dangling = launch.array::<f64>(3, launch.blocks)?;
    let mut mass = 0.0;
    for node in 0..nodes {
        let share = match out_degrees.get(node) {
            0 => {
                mass += ranks.get(node);
                0.0
            }
            degree => ranks.get(node) / f64::from(degree),
        };
        shares.set(node, share);
    }
    set_parts(&dangling, mass);
    Ok(())
}

/// `(dangling, parts, base, damping, nodes)`
pub(crate) fn base(launch: &Launch) -> Answer {
    let dangling = launch.array::<f64>(0, launch.count(1))?;
    let base = launch.array::<f64>(2, 1)?;
    let (damping, nodes) = (launch.f64(3), f64::from(launch.u32(4)));
    base.set(0, (1.0 - damping + damping * total(&dangling)) / nodes);
    Ok(())
}

/// `(starts, sources, shares, ranks, base, next, moved, damping, nodes)`
pub(crate) fn pull(launch: &Launch) -> Answer {
    let (damping, nodes) = (launch.f64(7), launch.count(8));
    let starts = launch.array::<u32>(0, if nodes == 0 { 0 } else { nodes + 1 })?;
    let row = |node: usize| starts.get(node) as usize..starts.get(node + 1) as usize;
    // The graph is not trusted: it may name edges and nodes that are nowhere.
    let rows = (0..nodes).map(row).filter(|row| !row.is_empty());
    let sources = launch.array::<u32>(1, rows.clone().map(|row| row.end).max().unwrap_or(0))?;
    let last = rows.flatten().map(|edge| sources.get(edge)).max();
    let shares = launch.array::<f64>(2, last.map_or(0, |last| last as usize + 1))?;
    let ranks = launch.array::<f64>(3, nodes)?;
    let base = launch.array::<f64>(4, nodes.min(1))?;
    let next = launch.array::<f64>(5, nodes)?;
    let moved = launch.array::<f64>(6, launch.blocks)?;
    let mut distance = 0.0;
    for node in 0..nodes {
        let sum = row(node).fold(0.0, |sum, edge| sum + shares.get(sources.get(edge) as usize));
        let rank = base.get(0) + damping * sum;
        distance += (rank - ranks.get(node)).abs();
        next.set(node, rank);
    }
    set_parts(&moved, distance);
    Ok(())
}

/// `(parts, count, total)`
pub(crate) fn sum(launch: &Launch) -> Answer {
    let parts = launch.array::<f64>(0, launch.count(1))?;
    launch.array::<f64>(2, 1)?.set(0, total(&parts));
    Ok(())
}

fn total(parts: &Array<f64>) -> f64 {
    (0..parts.len()).fold(0.0, |sum, part| sum + parts.get(part))
}

fn set_parts(parts: &Array<f64>, sum: f64) {
    for part in 0..parts.len() {
        parts.set(part, if part == 0 { sum } else { 0.0 });
    }
}
