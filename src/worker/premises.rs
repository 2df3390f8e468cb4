//! The device that a domain's workers hold, as its keeper knows it.

use std::sync::Arc;

use rustkernel_actors::SharedBreaker;
use rustkernel_core::DeviceId;
use rustkernel_core::fault::Fault;

use super::mailbox::Mailbox;
use super::wire::Opened;

/// The device of a domain: nothing for one without a device, or with a processor.
#[derive(Clone)]
pub(super) struct Premises(imp::Watch);

impl Premises {
    /// `mailbox` hears when the device becomes unfit, or fit again.
    pub(super) fn of(device: Option<DeviceId>, mailbox: &Arc<Mailbox>) -> Self {
        Self(imp::Watch::of(device, mailbox))
    }

    /// Why no worker may have the device, if none may.
    pub(super) fn unfit(&self) -> Option<String> {
        self.0.unfit()
    }

    /// Whether what its processes hold fits into it twice: the next one need not wait until a killed one has given it back. Unknown is no.
    pub(super) fn has_room(&self) -> bool {
        self.0.has_room()
    }

    /// A worker has opened it there.
    pub(super) fn located(&self, place: &Opened) {
        self.0.located(place);
    }

    /// A worker is about to be killed.
    pub(super) fn note_kill(&self) {
        self.0.note_kill();
    }

    /// A worker has lost it by this fault.
    pub(super) fn note_fault(&self, fault: Fault) {
        self.0.note_fault(fault);
    }

    /// A killed worker does not end: until what this gives is dropped.
    pub(super) fn suspect(&self) -> Suspicion {
        Suspicion { _device: self.0.suspect() }
    }

    /// The device's own breaker.
    pub(super) fn breaker(&self) -> Option<SharedBreaker> {
        self.0.breaker()
    }
}

/// The device is suspect for as long as this is there.
pub(super) struct Suspicion {
    _device: imp::Suspect,
}

#[cfg(feature = "cuda")]
mod imp {
    use std::sync::Arc;

    use rustkernel_actors::SharedBreaker;
    use rustkernel_core::DeviceId;
    use rustkernel_core::device::DeviceKind;
    use rustkernel_core::fault::Fault;

    use super::super::mailbox::{Mail, Mailbox};
    use super::super::wire::Opened;
    use crate::cuda::{DeviceWatch, Listener};

    #[derive(Clone)]
    pub(super) struct Watch(Option<(DeviceWatch, Listener)>);

    pub(super) type Suspect = Option<crate::cuda::Suspect>;

    impl Watch {
        pub(super) fn of(device: Option<DeviceId>, mailbox: &Arc<Mailbox>) -> Self {
            Self(device.filter(|device| device.kind() == DeviceKind::Cuda).map(|device| {
                let watch = DeviceWatch::of(device);
                let mailbox = Arc::clone(mailbox);
                let listener: Listener = Arc::new(move || mailbox.post(Mail::DeviceTurned));
                watch.on_turn(&listener);
                (watch, listener)
            }))
        }

        fn watch(&self) -> Option<&DeviceWatch> {
            self.0.as_ref().map(|(watch, _)| watch)
        }

        pub(super) fn unfit(&self) -> Option<String> {
            let watch = self.watch()?;
            Some(format!("{} is {}", watch.id(), watch.unfit()?))
        }

        pub(super) fn has_room(&self) -> bool {
            self.watch().is_some_and(DeviceWatch::has_room)
        }

        pub(super) fn located(&self, place: &Opened) {
            self.watch().into_iter().for_each(|watch| watch.located(&place.pci, place.memory_bytes));
        }

        pub(super) fn note_kill(&self) {
            self.watch().into_iter().for_each(DeviceWatch::note_kill);
        }

        pub(super) fn note_fault(&self, fault: Fault) {
            self.watch().into_iter().for_each(|watch| watch.note_fault(fault));
        }

        pub(super) fn suspect(&self) -> Suspect {
            self.watch().map(DeviceWatch::suspect)
        }

        pub(super) fn breaker(&self) -> Option<SharedBreaker> {
            self.watch().map(|watch| watch.breaker().clone())
        }
    }
}

/// Workers of such a program open no device, either.
#[cfg(not(feature = "cuda"))]
mod imp {
    use std::sync::Arc;

    use rustkernel_actors::SharedBreaker;
    use rustkernel_core::DeviceId;
    use rustkernel_core::fault::Fault;

    use super::super::mailbox::Mailbox;
    use super::super::wire::Opened;

    #[derive(Clone)]
    pub(super) struct Watch;

    pub(super) type Suspect = ();

    impl Watch {
        pub(super) fn of(_: Option<DeviceId>, _: &Arc<Mailbox>) -> Self {
            Self
        }

        pub(super) fn unfit(&self) -> Option<String> {
            None
        }

        pub(super) fn has_room(&self) -> bool {
            false
        }

        pub(super) fn located(&self, _: &Opened) {}

        pub(super) fn note_kill(&self) {}

        pub(super) fn note_fault(&self, _: Fault) {}

        pub(super) fn suspect(&self) -> Suspect {}

        pub(super) fn breaker(&self) -> Option<SharedBreaker> {
            None
        }
    }
}
