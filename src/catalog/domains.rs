//! The worker processes of a job, started when the first kernel is made for them.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use rustkernel_actors::Lifeline;
use rustkernel_core::DeviceId;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::LocalKernel;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::DomainSection;
use crate::worker::{Domain, Maker, Making};

/// The fault domains of a job, by name.
#[derive(Debug)]
pub(crate) struct Domains {
    sections: BTreeMap<String, DomainSection>,
    started: Mutex<BTreeMap<String, Result<Domain, String>>>,
}

impl Domains {
    pub(crate) fn new(sections: BTreeMap<String, DomainSection>) -> Arc<Self> {
        Arc::new(Self { sections, started: Mutex::default() })
    }

    /// What makes a kernel's lives in the domain called `name`, which has `device`. A domain that cannot be fails every start there.
    pub(crate) fn maker<K>(
        &self,
        name: &str,
        device: DeviceId,
        kernel: &str,
        settings: &impl Serialize,
    ) -> Maker<K::Input, K::Output>
    where
        K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
    {
        match self.domain(name, device) {
            Ok(domain) => domain.maker::<K>(kernel, settings),
            Err(error) => {
                Box::new(move |_: Lifeline| Making::of(ready(Err(KernelError::permanent(error.clone())))))
            }
        }
    }

    /// Those that have been started.
    pub(crate) fn started(&self) -> Vec<Domain> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.values().filter_map(|domain| domain.clone().ok()).collect()
    }

    fn domain(&self, name: &str, device: DeviceId) -> Result<Domain, String> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let section = self.sections.get(name).cloned().unwrap_or_default();
            Domain::start(name, section.config(device)).map_err(|error| format!("the domain {name}: {error}"))
        };
        started.entry(name.to_owned()).or_insert_with(start).clone()
    }
}
