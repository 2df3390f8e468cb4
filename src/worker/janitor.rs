//! Drops what comes back to a worker, on a thread of its own: what is given back to a device may have to wait for it, and whoever hears
//! the supervising process has to go on hearing it.

use std::sync::mpsc;
use std::thread;

use super::border::Thing;

pub(super) struct Janitor(mpsc::Sender<Vec<Thing>>);

impl Janitor {
    /// Starts its thread, which lasts as long as the process.
    pub(super) fn start() -> std::io::Result<Self> {
        let (sender, things) = mpsc::channel::<Vec<Thing>>();
        thread::Builder::new().name("janitor".to_owned()).spawn(move || {
            for things in things {
                drop(things);
                tidy();
            }
        })?;
        Ok(Self(sender))
    }

    /// Has these dropped.
    pub(super) fn take(&self, things: Vec<Thing>) {
        if !things.is_empty() {
            // It lasts as long as this.
            let _ = self.0.send(things);
        }
    }

    /// Has a look at what devices have finished with in the meantime.
    pub(super) fn tidy(&self) {
        if cfg!(feature = "cuda") && super::device::is_gpu_wanted() {
            let _ = self.0.send(Vec::new());
        }
    }
}

#[cfg(feature = "cuda")]
fn tidy() {
    crate::cuda::tidy();
}

#[cfg(not(feature = "cuda"))]
fn tidy() {}
