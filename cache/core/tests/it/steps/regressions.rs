//! What the simulator found, each as the shortest story that shows it.

use super::*;

/// Its second read fails for ever, and its copies stay. What was closed after it goes to the bucket all the same.
#[test]
fn a_damaged_object_keeps_no_later_segment_from_the_bucket() {
    let mut world = World::<AllRules>::new(1);
    world.faults = false;
    // Few enough that retention takes none.
    (0..4).for_each(|_| world.roll());
    let first_is_in = |world: &World<AllRules>| world.info().chain[0].object.clone();
    let place = (0..100).find_map(|_| {
        world.step();
        first_is_in(&world)
    });
    let name = place.expect("nothing fails").key.to_string();
    world.bucket.insert(name, (Stored::Object { sound: false }, world.wall));
    for _ in 0..400 {
        world.wall += 5;
        world.step();
    }
    let info = world.info();
    assert_eq!(info.record.copies_from, 1, "the only sound copies of the first are on bookies");
    let waiting: Vec<u64> = info.chain.iter().filter(|row| row.object.is_none()).map(|row| row.segment.n).collect();
    assert!(waiting.is_empty(), "segments {waiting:?} wait behind it");
}

/// The version that an expired pin held is gone, rightly: a sweep that asked for it could never judge anything again.
#[test]
fn an_expired_pin_does_not_stop_the_sweep() {
    let mut world = World::<AllRules>::new(1);
    world.faults = false;
    (0..6).for_each(|_| world.roll());
    while world.info().record.root.is_none() {
        world.wall += 5;
        world.step();
    }
    let pinned = world.info().record.root.clone().expect("waited for");
    let pin = Pin { partition: world.partition, id: 1, root_ver: pinned.ver, ttl_ms: 1_000 };
    world.apply(pin.into()).expect("it is the current version");
    for turn in 0..1_000 {
        if turn % 50 == 0 {
            world.roll();
        }
        world.wall += 5;
        world.step();
    }
    assert!(!world.bucket.contains_key(&pinned.key.to_string()), "its grave is empty by now");
    let n = world.info().chain.last().expect("rolled").segment.n;
    let epoch = world.info().record.epoch;
    let orphan = ObjectKey { incarnation: 0, partition: world.partition, n, epoch, attempt: u64::MAX, shared: false };
    world.put(orphan.to_string(), Stored::Object { sound: true });
    world.wall += SWEEP_AGE_MS as i64 + 1;
    world.roll();
    world.sweep();
    assert!(!world.bucket.contains_key(&orphan.to_string()), "nothing reaches it");
}
