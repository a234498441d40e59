use std::collections::HashMap;

use proptest::prelude::*;

use super::buckets::BUCKETS_PER_ENTRY;
use super::*;

const HERE: OriginId = OriginId(0);
const THERE: OriginId = OriginId(3);

fn seconds(secs: u32) -> Timestamp {
    Timestamp::from_parts(1_000 + secs, 0)
}

fn table() -> ExpiringTable<u32, u32> {
    ExpiringTable::new(16, [Duration::from_secs(10), Duration::from_secs(2)])
}

fn insert(table: &mut ExpiringTable<u32, u32>, origin: OriginId, key: u32) -> Slot {
    table.insert(origin, key, key)
}

/// Removes all expired entries, and returns them.
fn expire(table: &mut ExpiringTable<u32, u32>, origin: OriginId) -> Vec<u32> {
    std::iter::from_fn(|| table.expired(origin).map(|slot| table.remove(slot))).collect()
}

#[test]
fn entries_expire_by_the_clock_of_their_origin() {
    let mut table = table();
    for (origin, key) in [(HERE, 1), (HERE, 2), (THERE, 3)] {
        table.tick(origin, seconds(key));
        insert(&mut table, origin, key);
    }
    let ended = table.find(&2).unwrap();
    table.touch(ended, Limit::Ended);
    table.tick(HERE, seconds(4));
    assert_eq!(expire(&mut table, HERE), []);
    table.tick(HERE, seconds(5));
    assert_eq!(expire(&mut table, HERE), [2]);
    table.tick(HERE, seconds(100));
    assert_eq!((expire(&mut table, HERE), expire(&mut table, THERE)), (vec![1], vec![]));
    assert_eq!((table.find(&1), table.find(&3).is_some(), table.len()), (None, true, 1));
}

#[test]
fn longest_idle_compares_each_entry_with_its_own_clock() {
    let mut table = table();
    for (origin, key, at) in [(HERE, 1, 3), (HERE, 2, 5), (THERE, 3, 50)] {
        table.tick(origin, seconds(at));
        insert(&mut table, origin, key);
    }
    table.tick(HERE, seconds(8));
    let first = table.find(&1).unwrap();
    table.touch(first, Limit::Active);
    table.tick(THERE, seconds(52));
    assert_eq!(table.longest_idle(None), table.find(&2));
    table.tick(THERE, seconds(54));
    assert_eq!(table.longest_idle(None), table.find(&3));
    assert_eq!(table.longest_idle(table.find(&3)), table.find(&2));
}

#[test]
fn entries_expire_after_the_clock_was_set_back() {
    let mut table = table();
    table.tick(HERE, seconds(10_000));
    insert(&mut table, HERE, 1);
    for (at, key) in [(0, 2), (1, 3)] {
        table.tick(HERE, seconds(at));
        insert(&mut table, HERE, key);
    }
    assert_eq!(expire(&mut table, HERE), []);
    table.tick(HERE, seconds(20));
    assert_eq!(expire(&mut table, HERE), [2, 3, 1]);
}

/// Enough keys for several doublings of the buckets.
#[test]
fn buckets_grow_with_the_entries() {
    let mut table: ExpiringTable<u32, u32> = ExpiringTable::new(5_000, [Duration::from_secs(10); 2]);
    for key in 0..10_000 {
        insert(&mut table, HERE, key);
        assert_eq!(table.buckets.len(), (BUCKETS_PER_ENTRY * (key as usize + 1)).clamp(1_024, 20_000));
    }
    assert!((0..10_000).all(|key| table.find(&key).is_some_and(|slot| table.get(slot).value == key)));
    for key in 0..10_000 {
        let slot = table.find(&key).unwrap();
        assert_eq!(table.remove(slot), key);
    }
    assert!(table.buckets.are_empty());
}

proptest! {
    #[test]
    fn the_table_behaves_as_a_map_with_expiry(steps in prop::collection::vec((0u32..40, any::<bool>(), 0u32..4), 0..400)) {
        let (mut table, mut model) = (table(), HashMap::new());
        let mut at = 0;
        for (key, ends, later) in steps {
            at += later;
            table.tick(HERE, seconds(at));
            for gone in expire(&mut table, HERE) {
                let (seen, limit) = model.remove(&gone).unwrap();
                prop_assert!(at - seen > limit);
            }
            let slot = table.find(&key).unwrap_or_else(|| insert(&mut table, HERE, key));
            prop_assert_eq!(table.get(slot).value, key);
            table.touch(slot, if ends { Limit::Ended } else { Limit::Active });
            model.insert(key, (at, if ends { 2 } else { 10 }));
            prop_assert_eq!(table.len(), model.len());
            prop_assert!(model.values().all(|(seen, limit)| at - seen <= *limit));
            prop_assert!(model.keys().all(|key| table.find(key).is_some()));
        }
    }
}
