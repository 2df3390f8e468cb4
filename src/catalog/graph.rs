//! The graph kernels, as a file can name them.

use std::sync::Arc;

use rustkernel_actors::register as register_kernel;
use rustkernel_actors::{KernelSpec, Pipeline};
use rustkernel_core::device::DeviceKind;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{Kernel, Payload};

use super::Site;
use super::site::{Factories, Make, Ordered, on_cuda};
use super::{CatalogEntry, Prepared, Sections, SettingsError};
use crate::config::Placement;
use crate::cuda::Device;
use crate::inject::{FaultPlan, Faulty, Injector};
use crate::kernels::graph::pagerank::CudaPageRank;
use crate::kernels::graph::pagerank::PageRankError;
use crate::kernels::graph::{
    EdgeListLimits, EdgeListSource, Graph, Load, PageRank, PageRankConfig, PageRankState, Ranking, TopK,
    TopKConfig,
};
use crate::worker::Kernels;

pub(super) const ENTRIES: [CatalogEntry; 3] = [
    CatalogEntry {
        name: Load::NAME,
        takes: EdgeListSource::schema,
        gives: Graph::schema,
        converges: false,
        blocks: true,
        keeps: false,
        on_cuda: false,
        prepare: load,
    },
    CatalogEntry {
        name: PageRank::NAME,
        takes: PageRankState::schema,
        gives: PageRankState::schema,
        converges: true,
        blocks: false,
        keeps: true,
        on_cuda: true,
        prepare: page_rank,
    },
    CatalogEntry {
        name: TopK::NAME,
        takes: PageRankState::schema,
        gives: Ranking::schema,
        converges: false,
        blocks: false,
        keeps: false,
        on_cuda: false,
        prepare: top_k,
    },
];

type Refused = (&'static str, SettingsError);

/// Calls of a stage that is not repeated.
fn one_call<I>(_: &I) -> u64 {
    0
}

/// The rounds of the ranking are calls of one request.
fn round(state: &PageRankState) -> u64 {
    state.iteration().into()
}

/// What a worker process can make of these, from what a [`Site`] sends.
pub(super) fn register(kernels: &mut Kernels) {
    kernels.register(Load::NAME, |(limits, faults, _): Ordered<EdgeListLimits>| {
        Ok(faulty(Load::new(limits), faults, one_call))
    });
    kernels.register_checkpointed(PageRank::NAME, |(config, faults, _): Ordered<PageRankConfig>| {
        Ok(faulty(PageRank::new(config).map_err(KernelError::permanent)?, faults, round))
    });
    kernels.register(TopK::NAME, |(config, faults, _): Ordered<TopKConfig>| {
        Ok(faulty(TopK::new(&config).map_err(KernelError::permanent)?, faults, one_call))
    });
    kernels.register_checkpointed(
        on_cuda(PageRank::NAME),
        |(config, faults, device): Ordered<PageRankConfig>| {
            let device = Device::open(device.number())?;
            CudaPageRank::new(&device, config, plan(faults, round))
        },
    );
}

fn faulty<K: Kernel>(kernel: K, faults: Option<(Injector, String)>, call: fn(&K::Input) -> u64) -> Faulty<K> {
    Faulty::new(kernel, plan(faults, call))
}

fn plan<I>(faults: Option<(Injector, String)>, call: fn(&I) -> u64) -> Option<Arc<FaultPlan<I>>> {
    faults.map(|(injector, name)| FaultPlan::new(injector, &name, call))
}

fn load(sections: &Sections<'_>) -> Result<Prepared, Refused> {
    let read = sections.read(|limits: &EdgeListLimits| match limits.zero() {
        Some(field) => Err(SettingsError::Value { field, source: "must be at least 1".into() }),
        None => Ok(()),
    });
    let (main, degraded) = read?;
    Ok(Box::new(move |site| {
        let make = |limits: EdgeListLimits| -> Make<Load> { Arc::new(move || Ok(Load::new(limits.clone()))) };
        let factories = Factories::new(&main, degraded.as_ref(), make);
        site.make(one_call, &factories, |spec| spec, |once, _| once)
    }))
}

fn page_rank(sections: &Sections<'_>) -> Result<Prepared, Refused> {
    let (main, degraded) = sections.read(check_page_rank)?;
    Ok(Box::new(move |site| {
        let make = |config: PageRankConfig| -> Make<PageRank> {
            Arc::new(move || PageRank::new(config.clone()).map_err(KernelError::permanent))
        };
        let factories = Factories::new(&main, degraded.as_ref(), make);
        let (repeat, tolerance) = (site.stage.repeat, main.tolerance);
        let counting = site.clone();
        let until_converged = move |once: Pipeline<PageRankState, PageRankState>, rounds_before| {
            let Some(repeat) = repeat else { return once };
            let left = repeat.limit.saturating_sub(rounds_before);
            if left == 0 {
                return Pipeline::start().try_map(move |state| after_the_last_round(state, tolerance));
            }
            let count_round = counting.round_counter(rounds_before);
            once.repeat_until(left, move |state| {
                count_round(state);
                state.is_converged(tolerance)
            })
        };
        if site.stage.device.kind() == DeviceKind::Cuda && site.stage.placement == Placement::Thread {
            let spec = page_rank_inside(site, &main, factories.degraded.map(|(_, make)| make));
            return site.lead(Box::new(spec), until_converged);
        }
        let checkpointed = site.stage.checkpointed;
        let dress = |spec: KernelSpec<Faulty<PageRank>>| {
            if checkpointed { spec.checkpointed().checkpoint_schema("graph/pagerank/1") } else { spec }
        };
        site.make(round, &factories, dress, until_converged)
    }))
}

/// The ranking on a device that this process has itself. Its degraded path runs on a processor.
fn page_rank_inside(
    site: &Site,
    config: &PageRankConfig,
    degraded: Option<Make<PageRank>>,
) -> KernelSpec<CudaPageRank> {
    let (config, ordinal) = (config.clone(), site.stage.device.number());
    let faults = site.injector.map(|injector| FaultPlan::new(injector, site.stage.id(), round));
    let make = move || CudaPageRank::new(&Device::open(ordinal)?, config.clone(), faults.clone());
    let mut spec = site.rules(KernelSpec::fallible(site.stage.id(), make).registered(&register_kernel()));
    if let Some(degraded) = degraded {
        spec = spec.degraded_fallible(move || degraded());
    }
    if site.stage.checkpointed { spec.checkpointed().checkpoint_schema("graph/pagerank/1") } else { spec }
}

fn check_page_rank(config: &PageRankConfig) -> Result<(), SettingsError> {
    PageRank::new(config.clone()).map(drop).map_err(|error| {
        let field = match error {
            PageRankError::Damping { .. } => "damping",
            PageRankError::Tolerance { .. } => "tolerance",
            PageRankError::RankCount { .. } | PageRankError::Rank { .. } | PageRankError::Delta { .. } => "",
        };
        SettingsError::Value { field, source: error.into() }
    })
}

fn top_k(sections: &Sections<'_>) -> Result<Prepared, Refused> {
    let (main, degraded) = sections.read(|config: &TopKConfig| {
        TopK::new(config).map(drop).map_err(|error| SettingsError::Value { field: "k", source: error.into() })
    })?;
    Ok(Box::new(move |site| {
        let make = |config: TopKConfig| -> Make<TopK> {
            Arc::new(move || TopK::new(&config).map_err(KernelError::permanent))
        };
        let factories = Factories::new(&main, degraded.as_ref(), make);
        site.make(one_call, &factories, |spec| spec, |once, _| once)
    }))
}

/// What a stage that has made all its rounds comes to, as the round that was the last decides it.
fn after_the_last_round(state: PageRankState, tolerance: f64) -> Result<PageRankState, KernelError> {
    if state.is_converged(tolerance) { Ok(state) } else { Err(KernelError::permanent(NOT_DONE)) }
}

/// As the pipeline says it.
const NOT_DONE: &str = "not done within the limit of rounds";

#[cfg(test)]
mod tests {
    use super::*;

    /// The process may end after the round that converged and before the next stage.
    #[test]
    fn what_converged_in_the_last_round_passes_and_what_did_not_fails() {
        let graph = Graph::from_edges(vec![(1, 2), (2, 1)]).unwrap();
        let after = |delta| PageRankState::new(graph.clone(), [0.5, 0.5].into(), 9, delta).unwrap();
        assert_eq!(after_the_last_round(after(1e-9), 1e-9).unwrap(), after(1e-9));
        let failed = after_the_last_round(after(1e-8), 1e-9).unwrap_err();
        assert!(failed.to_string().contains(NOT_DONE), "{failed}");
    }
}
