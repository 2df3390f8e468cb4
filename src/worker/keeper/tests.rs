//! What becomes of a worker that was killed, with processes whose ends nobody looks at.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use rustkernel_core::DeviceId;
use rustkernel_core::fault::{DeviceSample, RecoveryAction};

use super::super::code::{self, CodeKind};
use super::super::dying::PATIENCE;
use super::super::memory::Memory;
use super::super::process::WorkerCommand;
use super::*;
use crate::cuda::{DeviceMemory, DeviceWatch};

/// A keeper of two processes, of which the first was killed; nobody looks whether it has ended.
fn killed(device: DeviceId, memory: Option<DeviceMemory>) -> Keeper {
    let watch = DeviceWatch::of(device);
    watch.located("nowhere", 80);
    watch.on_sample(&DeviceSample::default(), memory);
    let worker = WorkerCommand::program("sleep").arguments(["60"]);
    let config = DomainConfig { worker, device: Some(device), ..DomainConfig::default() };
    let status = Arc::new(Mutex::new(DomainStatus::new()));
    let pool = Pool::new(Memory::new().unwrap(), false);
    let mut keeper = Keeper::new("x".into(), config, Mailbox::new().unwrap(), status, pool);
    for _ in 0..2 {
        start(&mut keeper);
    }
    keeper.workers[0].kill(Timestamp::ZERO, "of this".to_owned(), Blame::Anybody);
    keeper
}

fn start(keeper: &mut Keeper) {
    keeper.start_due = Timestamp::ZERO;
    keeper.start_workers(Timestamp::ZERO);
    let worker = keeper.workers.last_mut().unwrap();
    (worker.is_up, worker.has_spoken) = (true, true);
}

fn end(mut keeper: Keeper) {
    keeper.workers.iter().for_each(|worker| worker.process.kill());
    let processes = keeper.workers.iter_mut().map(|worker| &mut worker.process);
    let dying = std::mem::take(&mut keeper.dying);
    for process in processes {
        poll(&mut [PollFd::from_borrowed_fd(process.watch(), PollFlags::IN)], None).unwrap();
        process.end().unwrap();
    }
    for mut dying in dying {
        poll(&mut [PollFd::from_borrowed_fd(dying.watch(), PollFlags::IN)], None).unwrap();
        assert!(dying.has_ended(Timestamp::ZERO));
    }
}

/// On an H100 the end of a process takes a tenth of a second, in which nobody served.
#[test]
fn where_the_device_has_room_for_two_the_next_one_does_not_wait_for_the_end_of_a_killed_one() {
    let memory = DeviceMemory { used: 40, total: 80 };
    let mut keeper = killed(DeviceId::cuda(902), Some(memory));
    let spare = keeper.workers[1].process.pid();
    keeper.watch(Timestamp::ZERO);
    keeper.publish(Timestamp::ZERO);
    let status = keeper.status.lock().unwrap().clone();
    assert_eq!((status.pid, status.deaths), (Some(spare), 1));
    assert_eq!((status.dying, status.undying), (1, 0));
    let last = status.last_death.unwrap();
    assert!(last.ends_with("was killed: of this"), "{last}");
    keeper.publish(Timestamp::ZERO + PATIENCE);
    assert_eq!(keeper.status.lock().unwrap().undying, 1, "as long as nobody looks");
    end(keeper);
}

#[test]
fn where_it_has_none_or_nothing_is_known_the_killed_one_has_two_seconds() {
    let full = DeviceMemory { used: 41, total: 80 };
    for (device, memory) in [(903, Some(full)), (904, None)] {
        let mut keeper = killed(DeviceId::cuda(device), memory);
        let spare = keeper.workers[1].process.pid();
        keeper.watch(Timestamp::ZERO + PATIENCE.saturating_sub(Duration::from_nanos(1)));
        assert_eq!((keeper.deaths, keeper.workers.len()), (0, 2));
        keeper.watch(Timestamp::ZERO + PATIENCE);
        keeper.publish(Timestamp::ZERO + PATIENCE);
        let status = keeper.status.lock().unwrap().clone();
        assert_eq!((status.pid, status.deaths, status.undying), (Some(spare), 1, 1));
        let last = status.last_death.unwrap();
        assert!(last.contains("does not end though it was killed: of this"), "{last}");
        end(keeper);
    }
}

/// For what three processes hold there may be no room, and what NVML says is from before the first one died.
#[test]
fn where_one_is_dying_already_the_next_one_is_waited_for() {
    let mut keeper = killed(DeviceId::cuda(905), Some(DeviceMemory { used: 10, total: 80 }));
    keeper.watch(Timestamp::ZERO);
    start(&mut keeper);
    keeper.workers[0].kill(Timestamp::ZERO, "again".to_owned(), Blame::Anybody);
    keeper.watch(Timestamp::ZERO);
    assert_eq!((keeper.deaths, keeper.dying.len(), keeper.workers.len()), (1, 1, 2));
    end(keeper);
}

#[test]
fn where_the_next_one_is_not_up_yet_a_killed_one_is_waited_for() {
    let mut keeper = killed(DeviceId::cuda(906), Some(DeviceMemory { used: 10, total: 80 }));
    keeper.workers[1].is_up = false;
    keeper.watch(Timestamp::ZERO);
    assert_eq!((keeper.deaths, keeper.workers.len()), (0, 2));
    end(keeper);
}

/// Its kernels' callers are told at once. A new process may find the device still taken by the one that goes.
#[test]
fn where_nobody_stands_by_the_next_one_is_started_when_the_killed_one_has_ended() {
    let mut keeper = killed(DeviceId::cuda(909), None);
    let mut spare = keeper.workers.remove(1);
    keeper.watch(Timestamp::ZERO);
    assert_eq!((keeper.deaths, keeper.workers.len(), keeper.dying.len()), (1, 0, 1));
    keeper.start_workers(Timestamp::ZERO);
    assert_eq!(keeper.workers.len(), 0);
    assert!(keeper.next_due(Timestamp::ZERO) > Some(Timestamp::ZERO), "it does not look again and again");
    let dying = [PollFd::from_borrowed_fd(keeper.dying[0].watch(), PollFlags::IN)];
    poll(&mut { dying }, None).unwrap();
    keeper.see_ends();
    keeper.start_workers(keeper.start_due);
    assert_eq!((keeper.workers.len(), keeper.dying.len()), (1, 0));
    spare.process.kill();
    poll(&mut [PollFd::from_borrowed_fd(spare.process.watch(), PollFlags::IN)], None).unwrap();
    spare.process.end().unwrap();
    end(keeper);
}

/// Nothing is started there, and whoever lives there goes elsewhere.
#[test]
fn on_an_unfit_device_nobody_is_waited_for() {
    let device = DeviceId::cuda(910);
    let mut keeper = killed(device, None);
    let wants_reset =
        DeviceSample { recovery_action: Some(RecoveryAction::GpuReset), ..DeviceSample::default() };
    DeviceWatch::of(device).on_sample(&wants_reset, None);
    keeper.read(Mail::DeviceTurned, Timestamp::ZERO);
    keeper.watch(Timestamp::ZERO);
    assert_eq!((keeper.deaths, keeper.workers.len(), keeper.dying.len()), (1, 1, 1));
    end(keeper);
}

/// How it ends is worth more than a tenth of a second: a crash has a name, and what it was killed for in the meantime has none.
#[test]
fn one_that_hung_up_by_itself_is_waited_for_and_its_end_is_told() {
    let mut keeper = killed(DeviceId::cuda(907), Some(DeviceMemory { used: 10, total: 80 }));
    keeper.workers[0].suspect(Timestamp::ZERO, Blame::Anybody, || "it seems so".to_owned());
    keeper.watch(Timestamp::ZERO);
    assert_eq!(keeper.deaths, 0);
    let ends = [PollFd::from_borrowed_fd(keeper.workers[0].process.watch(), PollFlags::IN)];
    poll(&mut { ends }, None).unwrap();
    keeper.see_ends();
    assert!(keeper.last_death.as_ref().unwrap().contains("SIGKILL"), "{:?}", keeper.last_death);
    end(keeper);
}

#[test]
fn a_domain_that_closes_waits_for_the_dying_too() {
    let mut keeper = killed(DeviceId::cuda(908), Some(DeviceMemory { used: 10, total: 80 }));
    let killed = keeper.workers[0].process.pid();
    keeper.watch(Timestamp::ZERO);
    assert_eq!(keeper.dying.len(), 1);
    let status = Arc::clone(&keeper.status);
    // It should have ended long ago, by the clock of these tests: it is looked at once more.
    let dying = [PollFd::from_borrowed_fd(keeper.dying[0].watch(), PollFlags::IN)];
    poll(&mut { dying }, None).unwrap();
    keeper.close();
    assert!(!std::path::Path::new(&format!("/proc/{killed}")).exists(), "it has been waited for");
    let status = status.lock().unwrap();
    assert_eq!((status.dying, status.undying), (0, 0));
}

/// It would be told to load again what it may have died of, and so would each that comes after it.
#[test]
fn what_one_that_stood_by_was_to_prepare_when_it_died_is_not_asked_of_the_next() {
    for at in [0, 1] {
        let mut keeper = killed(DeviceId::cuda(911), None);
        let (code, file) = code::written(CodeKind::Ptx, b"// ptx").unwrap().unwrap();
        keeper.hand_on(0, vec![(code, file)]);
        assert_eq!(keeper.codes.all().count(), 1);
        let mut gone = keeper.remove(at);
        gone.process.kill();
        poll(&mut [PollFd::from_borrowed_fd(gone.process.watch(), PollFlags::IN)], None).unwrap();
        gone.process.end().unwrap();
        assert_eq!(keeper.codes.all().count(), 1 - at, "{at}");
        end(keeper);
    }
}
