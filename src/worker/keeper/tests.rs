//! What becomes of a worker that was killed, with processes whose ends nobody looks at.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use rustkernel_core::DeviceId;
use rustkernel_core::fault::DeviceSample;

use super::super::memory::Memory;
use super::super::process::WorkerCommand;
use super::*;
use crate::cuda::{DeviceMemory, DeviceWatch};

/// A keeper of two processes, of which the first was killed; nobody looks whether it has ended.
fn killed(device: DeviceId, memory: Option<DeviceMemory>) -> Keeper {
    DeviceWatch::of(device).on_sample(&DeviceSample::default(), memory);
    let worker = WorkerCommand::program("sleep").arguments(["1000"]);
    let config = DomainConfig { worker, device: Some(device), ..DomainConfig::default() };
    let status = Arc::new(Mutex::new(DomainStatus::new()));
    let pool = Pool::new(Memory::new().unwrap(), false);
    let mut keeper = Keeper::new("x".into(), config, Mailbox::new().unwrap(), status, pool);
    for _ in 0..2 {
        keeper.start_workers(Timestamp::ZERO);
        keeper.workers.last_mut().unwrap().is_up = true;
    }
    keeper.workers[0].kill(Timestamp::ZERO, "of this".to_owned(), Blame::Anybody);
    keeper
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
    assert_eq!((status.pid, status.deaths, status.undying), (Some(spare), 1, 0));
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
