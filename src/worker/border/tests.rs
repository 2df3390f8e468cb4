//! Both sides of a border in one process.

use std::sync::mpsc;

use super::super::memory::Access;
use super::*;

/// Both sides, in one process, and what each of them returns.
pub(in crate::worker) fn sides() -> [(Arc<Border>, mpsc::Receiver<Vec<u64>>); 2] {
    let memories = [Memory::new().unwrap(), Memory::new().unwrap()];
    let [of_there, of_here] = [1, 0].map(|of| {
        let (fd, reserved) = (memories[of].fd().try_clone().unwrap(), memories[of].reserved());
        Memory::map(fd, reserved, Access::Reads).unwrap()
    });
    let side = |own, theirs| {
        let (said, heard) = mpsc::channel();
        let returns = move |numbers| said.send(numbers).is_ok();
        (Border::new(Pool::new(own, false), theirs, Box::new(returns)), heard)
    };
    let [here, there] = memories;
    [side(here, of_there), side(there, of_here)]
}

fn lent(border: &Arc<Border>) -> (Arc<Held>, Place, Lending) {
    let held = Arc::new(Held::copied(border.own(), &[7; 5_000]).unwrap());
    let (place, lending) = border.write(|| border.lend(Thing::Memory(Arc::clone(&held))));
    (held, place.unwrap(), lending)
}

#[test]
fn what_is_lent_is_kept_until_it_is_taken_back_returned_or_forgotten() {
    let [(here, _), (there, heard)] = sides();
    let (held, _, lending) = lent(&here);
    assert_eq!(Arc::strong_count(&held), 2);
    drop(lending);
    assert_eq!(Arc::strong_count(&held), 1, "its message was not sent");

    let (held, place, lending) = lent(&here);
    lending.sent(Message { kernel: 1, request: 5 });
    let Ok(Found::Memory { bytes: 5_000, loan, .. }) = there.find(place) else { panic!("it is there") };
    there.return_all();
    assert!(heard.try_recv().is_err(), "it is in use");
    drop(loan);
    there.return_all();
    assert_eq!(Arc::strong_count(&held), 2);
    let numbers = heard.try_recv().unwrap();
    drop(here.take_back(&numbers));
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(here.take_back(&numbers).is_empty() && here.take_back(&[77]).is_empty(), "said by a liar");

    let (held, _, lending) = lent(&here);
    lending.sent(Message { kernel: 1, request: 5 });
    assert!(here.forget(1, 5).is_empty() && here.forget(2, 0).is_empty());
    assert_eq!(here.forget(1, 4).len(), 1);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn what_is_lent_to_one_that_is_gone_is_nobody_elses() {
    let [(here, _), _] = sides();
    let (held, _, lending) = lent(&here);
    lending.sent(Message { kernel: 1, request: 1 });
    here.close();
    assert_eq!(Arc::strong_count(&held), 1);
    let (held, _, lending) = lent(&here);
    lending.sent(Message { kernel: 1, request: 2 });
    assert_eq!(Arc::strong_count(&held), 1, "it arrives nowhere");
}

#[test]
fn what_is_lent_comes_back_as_its_owners() {
    let [(here, _), (there, heard)] = sides();
    let (held, place, lending) = lent(&here);
    lending.sent(Message { kernel: 1, request: 1 });
    let Ok(Found::Memory { start, bytes, loan }) = there.find(place) else { panic!("it is there") };
    let theirs = Arc::new(Held::lent(start, bytes, loan));
    let (back, lending) = there.write(|| there.lend(Thing::Memory(theirs)));
    lending.sent(Message { kernel: 1, request: 1 });
    let Ok(Found::Own(Thing::Memory(own))) = here.find(back.unwrap()) else { panic!("it is its own") };
    assert!(Arc::ptr_eq(&own, &held));
    there.return_all();
    assert!(heard.try_recv().is_err(), "it is still under way");
}

#[test]
fn what_a_liar_names_is_not_there_and_its_number_goes_back() {
    let [(here, _), (there, heard)] = sides();
    let (_held, _, _lending) = lent(&here);
    let lies = [
        Lies::Memory { offset: 8, bytes: 8 },
        Lies::Memory { offset: 0, bytes: 1 << 40 },
        Lies::Memory { offset: !4_095, bytes: 8_192 },
        Lies::Memory { offset: 8_192, bytes: 1 },
        Lies::Yours(1),
    ];
    for (number, lies) in (1..).zip(lies) {
        assert!(there.find(Place { number, lies }).is_err(), "{lies:?}");
        there.return_all();
        assert_eq!(heard.try_recv().unwrap(), [number]);
    }
}

#[test]
fn more_than_a_packet_takes_goes_back_in_several_and_what_finds_no_room_the_next_time() {
    let [(here, heard), _] = sides();
    here.return_soon(0..9_000);
    here.return_all();
    let packets: Vec<_> = heard.try_iter().map(|numbers| numbers.len()).collect();
    assert_eq!(packets, [4_000, 4_000, 1_000]);
    drop(heard);
    here.return_soon([1, 2]);
    here.return_all();
    assert_eq!(*here.returned(), [1, 2]);
}
