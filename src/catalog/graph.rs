//! The graph kernels, as a file can name them.

use rustkernel_actors::KernelSpec;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;

use super::{CatalogEntry, Prepared, Settings, SettingsError};
use crate::inject::Faulty;
use crate::kernels::graph::pagerank::PageRankError;
use crate::kernels::graph::{
    EdgeListLimits, EdgeListSource, Graph, Load, PageRank, PageRankConfig, PageRankState, Ranking, TopK,
    TopKConfig,
};

pub(super) const ENTRIES: [CatalogEntry; 3] = [
    CatalogEntry {
        name: Load::NAME,
        takes: EdgeListSource::schema,
        gives: Graph::schema,
        converges: false,
        blocks: true,
        keeps: false,
        prepare: load,
    },
    CatalogEntry {
        name: PageRank::NAME,
        takes: PageRankState::schema,
        gives: PageRankState::schema,
        converges: true,
        blocks: false,
        keeps: true,
        prepare: page_rank,
    },
    CatalogEntry {
        name: TopK::NAME,
        takes: PageRankState::schema,
        gives: Ranking::schema,
        converges: false,
        blocks: false,
        keeps: false,
        prepare: top_k,
    },
];

fn load(settings: &Settings<'_>) -> Result<Prepared, SettingsError> {
    let limits: EdgeListLimits = settings.read()?;
    if let Some(field) = limits.zero() {
        return Err(SettingsError::Value { field, source: "must be at least 1".into() });
    }
    Ok(Box::new(move |site| {
        let limits = limits.clone();
        Box::pin(async move {
            site.spawn(|_| 0, move || Ok(Load::new(limits.clone())), |spec| spec, |once| once).await
        })
    }))
}

fn page_rank(settings: &Settings<'_>) -> Result<Prepared, SettingsError> {
    let config: PageRankConfig = settings.read()?;
    PageRank::new(config.clone()).map_err(|error| {
        let field = match error {
            PageRankError::Damping { .. } => "damping",
            PageRankError::Tolerance { .. } => "tolerance",
            PageRankError::RankCount { .. } | PageRankError::Rank { .. } | PageRankError::Delta { .. } => "",
        };
        SettingsError::Value { field, source: error.into() }
    })?;
    Ok(Box::new(move |site| {
        let (config, tolerance) = (config.clone(), config.tolerance);
        let make = move || PageRank::new(config.clone()).map_err(KernelError::permanent);
        Box::pin(async move {
            let repeat = site.stage.repeat;
            let count_round = site.round_counter();
            let until_converged = |once: super::Pipeline<PageRankState, PageRankState>| match repeat {
                None => once,
                Some(repeat) => once.repeat_until(repeat.limit, move |state| {
                    count_round();
                    state.is_converged(tolerance)
                }),
            };
            let checkpointed = site.stage.checkpointed;
            let dress =
                |spec: KernelSpec<Faulty<PageRank>>| if checkpointed { spec.checkpointed() } else { spec };
            site.spawn(|state: &PageRankState| state.iteration().into(), make, dress, until_converged).await
        })
    }))
}

fn top_k(settings: &Settings<'_>) -> Result<Prepared, SettingsError> {
    let config: TopKConfig = settings.read()?;
    TopK::new(&config).map_err(|error| SettingsError::Value { field: "k", source: error.into() })?;
    Ok(Box::new(move |site| {
        let config = config.clone();
        let make = move || TopK::new(&config).map_err(KernelError::permanent);
        Box::pin(async move { site.spawn(|_| 0, make, |spec| spec, |once| once).await })
    }))
}
