//! Handles, by which a caller names what it has made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::code::{Answer, Code};

/// What is behind handles of one sort. A handle is never given twice.
pub(crate) struct Handles<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    last: usize,
    live: BTreeMap<usize, Arc<T>>,
}

impl<T> Handles<T> {
    /// Handles start behind `origin`, so that one sort is not taken for another.
    pub(crate) const fn new(origin: usize) -> Self {
        Self { inner: Mutex::new(Inner { last: origin, live: BTreeMap::new() }) }
    }

    pub(crate) fn insert(&self, value: T) -> usize {
        let mut inner = self.inner.lock().unwrap();
        inner.last += STEP;
        let handle = inner.last;
        inner.live.insert(handle, Arc::new(value));
        handle
    }

    pub(crate) fn find(&self, handle: usize) -> Answer<Arc<T>> {
        self.inner.lock().unwrap().live.get(&handle).cloned().ok_or(Code::INVALID_HANDLE)
    }

    pub(crate) fn remove(&self, handle: usize) -> Answer<Arc<T>> {
        self.inner.lock().unwrap().live.remove(&handle).ok_or(Code::INVALID_HANDLE)
    }

    pub(crate) fn retain(&self, keep: impl Fn(&T) -> bool) {
        self.inner.lock().unwrap().live.retain(|_, value| keep(value));
    }
}

const STEP: usize = 16;
