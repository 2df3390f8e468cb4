//! An edge list is a graph within its limits, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustkernel::kernels::graph::edge_list::{EdgeListLimits, read_edge_list};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(graph) = read_edge_list(bytes, &EdgeListLimits::default()) {
        assert!(graph.node_count() > 0 && graph.node_count() <= 2 * graph.edge_count());
        assert!(graph.ids().is_sorted());
    }
});
