use super::*;

#[test]
fn an_address_is_found_behind_the_port_it_was_last_seen_at() {
    let table = Table::new(PORT_LIMIT);
    let key = Key::new(0x0a00_0000_0002, 0);
    assert_eq!(table.find(key), None);
    let _ = table.learn(key, 3, 1);
    assert_eq!(table.find(key), Some(3));
    assert_eq!(
        table.find(Key::new(0x0a00_0000_0002, 10)),
        None,
        "another VLAN"
    );
    let _ = table.learn(key, 4, 2);
    assert_eq!(table.find(key), Some(4));
    assert_eq!((table.count(3), table.count(4)), (0, 1));
}

#[test]
fn addresses_age_and_leave_with_their_port() {
    let table = Table::new(PORT_LIMIT);
    for mac in 0..10 {
        let _ = table.learn(Key::new(mac, 0), u16::from(mac % 2 == 1), 5);
    }
    let _ = table.learn(Key::new(0, 0), 0, 200);
    table.age(5 + AGEING_SECONDS);
    assert_eq!(table.count(0), 5);
    table.age(6 + AGEING_SECONDS);
    assert_eq!((table.count(0), table.count(1)), (1, 0));
    table.forget_port(0);
    assert_eq!((table.find(Key::new(0, 0)), table.count(0)), (None, 0));
}

#[test]
fn one_port_cannot_take_more_than_its_limit() {
    let table = Table::new(100);
    for mac in 0..1000 {
        let _ = table.learn(Key::new(mac, 0), 0, 1);
    }
    let _ = table.learn(Key::new(5000, 0), 1, 1);
    assert_eq!((table.count(0), table.count(1)), (100, 1));
    assert_eq!(table.find(Key::new(5000, 0)), Some(1));
}

#[test]
fn a_hundred_thousand_addresses_are_remembered() {
    let table = Table::new(PORT_LIMIT);
    let mac = |i: u64| 0x0200_0000_0000 | i.wrapping_mul(0x1_0001);
    for i in 0..100_000 {
        let _ = table.learn(Key::new(mac(i), 0), 7, 1);
    }
    let found = (0..100_000)
        .filter(|&i| table.find(Key::new(mac(i), 0)) == Some(7))
        .count();
    assert!(found > 99_500, "{found}");
    assert_eq!(table.count(7) as usize, found);
}

#[test]
fn readers_never_meet_a_port_that_no_entry_had() {
    let table = Table::new(PORT_LIMIT);
    std::thread::scope(|scope| {
        for thread in 0..2u16 {
            let table = &table;
            scope.spawn(move || {
                for i in 0..50_000u64 {
                    let mac = i % 97;
                    let _ = table.learn(Key::new(mac, 0), 10 + thread, 1);
                    if let Some(slot) = table.find(Key::new(mac, 0)) {
                        assert!((10..12).contains(&slot), "{slot}");
                    }
                    if i % 1000 == 0 {
                        table.forget_port(10 + thread);
                    }
                }
            });
        }
    });
    let left = (0..97)
        .filter(|&mac| table.find(Key::new(mac, 0)).is_some())
        .count();
    assert_eq!(left, (table.count(10) + table.count(11)) as usize);
}

/// Addresses that all belong in the same pair of buckets.
fn colliding(count: usize) -> Vec<Key> {
    let pair = Key::new(0, 0).bucket() | 1;
    (0..)
        .map(|mac| Key::new(mac, 0))
        .filter(|key| key.bucket() | 1 == pair)
        .take(count)
        .collect()
}

#[test]
fn what_was_learned_while_the_sweep_began_stays() {
    let table = Table::new(PORT_LIMIT);
    let _ = table.learn(Key::new(1, 0), 0, 10);
    table.age(9);
    assert_eq!(table.find(Key::new(1, 0)), Some(0));
}

#[test]
fn an_address_that_moves_to_a_full_port_stays_where_it_was() {
    let table = Table::new(1);
    let (first, second) = (Key::new(1, 0), Key::new(2, 0));
    let _ = table.learn(first, 0, 1);
    let _ = table.learn(second, 1, 1);
    let _ = table.learn(first, 1, 2);
    assert_eq!((table.find(first), table.find(second)), (Some(0), Some(1)));
    table.forget_port(1);
    let _ = table.learn(first, 1, 3);
    assert_eq!((table.count(0), table.count(1)), (0, 1));
}

#[test]
fn in_a_full_pair_of_buckets_the_oldest_makes_room() {
    let table = Table::new(PORT_LIMIT);
    let keys = colliding(2 * WAYS + 1);
    for (slot, &key) in (0u16..).zip(&keys) {
        let _ = table.learn(key, slot, if slot == 3 { 1 } else { 2 });
    }
    for (slot, &key) in (0u16..).zip(&keys) {
        assert_eq!(table.find(key), (slot != 3).then_some(slot));
        assert_eq!(table.count(slot), u32::from(slot != 3));
    }
}

#[test]
fn a_port_that_floods_addresses_pushes_out_its_own() {
    let table = Table::new(PORT_LIMIT);
    let keys = colliding(200);
    let (victims, flood) = keys.split_at(2);
    for &key in victims {
        let _ = table.learn(key, 0, 1);
    }
    for &key in flood {
        let _ = table.learn(key, 1, 50);
    }
    assert!(victims.iter().all(|&key| table.find(key) == Some(0)));
    assert_eq!(table.count(1) as usize, 2 * WAYS - victims.len());
    // Nor can it keep others out by being there first.
    let late = colliding(201)[200];
    let _ = table.learn(late, 2, 51);
    assert_eq!(table.find(late), Some(2));
}

#[test]
fn an_entry_that_became_another_addresss_is_not_renewed() {
    let table = Table::new(PORT_LIMIT);
    let keys = colliding(2 * WAYS + 1);
    for &key in &keys[..2 * WAYS] {
        let _ = table.learn(key, 0, 1);
    }
    // A worker has found an entry and is overtaken by one that replaces it.
    let found = keys[..2 * WAYS].iter().map(|&key| {
        let (bucket, way) = table.entry(key).unwrap();
        (key, &bucket.values[way])
    });
    let found: Vec<_> = found.collect();
    let newcomer = keys[2 * WAYS];
    let _ = table.learn(newcomer, 1, 2);
    let replaced = found.iter().find(|(key, _)| table.find(*key).is_none());
    let &(key, value) = replaced.unwrap();
    let _ = table.renew(key, value_of(0, 1), value_of(0, 2), value);
    assert_eq!(table.find(newcomer), Some(1));
}

#[test]
fn counts_stay_right_while_everybody_writes_to_the_same_buckets() {
    let table = Table::new(PORT_LIMIT);
    let keys = colliding(3 * WAYS);
    std::thread::scope(|scope| {
        for slot in 0..3u16 {
            let (table, keys) = (&table, &keys);
            scope.spawn(move || {
                for round in 0..20_000u32 {
                    let key = keys[(round as usize * 7 + usize::from(slot)) % keys.len()];
                    let _ = table.learn(key, slot, round / 1000);
                    if let Some(found) = table.find(key) {
                        assert!(found < 3, "{found}");
                    }
                    match round % 5000 {
                        1000 => table.forget_port(slot),
                        3000 => table.age(round / 1000),
                        _ => {}
                    }
                }
            });
        }
    });
    for slot in 0..3 {
        let there = keys.iter().filter(|&&key| table.find(key) == Some(slot));
        assert_eq!(there.count(), table.count(slot) as usize);
    }
}

#[test]
fn a_limit_of_one_port_does_not_concern_the_others() {
    let table = Table::new(PORT_LIMIT);
    table.limit_port(0, 3);
    let learned = |slot: u16| {
        let keys = (0..10).map(|mac| Key::new(mac << 8 | u64::from(slot), 0));
        keys.filter(|&key| table.learn(key, slot, 1) == Learned::Yes)
            .count()
    };
    assert_eq!((learned(0), learned(1)), (3, 10));
    assert_eq!((table.count(0), table.count(1)), (3, 10));
    table.limit_port(0, 4);
    assert_eq!((learned(0), table.count(0)), (4, 4));
}

#[test]
fn an_address_is_learned_where_it_belongs_and_nowhere_else() {
    let table = Table::new(PORT_LIMIT);
    let owner = |slot, vlan| Owner { mac: 7, slot, vlan };
    let key = |domain| Key::new(7, domain);
    // It was learned elsewhere before it belonged to anybody.
    for domain in [0, 10, 20] {
        assert_eq!(table.learn(key(domain), 5, 1), Learned::Yes);
    }
    table.set_owners(vec![owner(1, Vlan::Plain), owner(2, Vlan::Access(10))]);
    assert_eq!(
        [0, 10, 20].map(|domain| table.find(key(domain))),
        [None, None, Some(5)]
    );
    assert_eq!(table.count(5), 1);
    for (domain, slot, learned) in [
        (0, 5, Learned::Foreign),
        (0, 2, Learned::Foreign),
        (0, 1, Learned::Yes),
        (0, 5, Learned::Foreign),
        (10, 1, Learned::Foreign),
        (10, 2, Learned::Yes),
        (20, 6, Learned::Yes),
    ] {
        assert_eq!(
            table.learn(key(domain), slot, 2),
            learned,
            "{domain} at {slot}"
        );
    }
    assert_eq!(
        (table.find(key(0)), table.find(key(10))),
        (Some(1), Some(2))
    );
    table.set_owners(Vec::new());
    assert_eq!(table.learn(key(0), 5, 3), Learned::Yes);
}

#[test]
fn an_address_moves_a_few_times_a_second_and_ends_where_it_was() {
    let table = Table::new(PORT_LIMIT);
    let key = Key::new(1, 0);
    for now in 1..4 {
        assert_eq!(table.learn(key, 0, now), Learned::Yes);
        let claims = (0..1000).flat_map(|_| [1, 0]);
        let moved = claims.filter(|&slot| table.learn(key, slot, now) == Learned::Yes);
        // Who has it renews it, which is no move.
        assert!(moved.count() < 1100);
        assert_eq!(table.find(key), Some(0), "{now}");
        assert_eq!((table.count(0), table.count(1)), (1, 0));
    }
    assert_eq!(
        table.learn(key, 1, 4),
        Learned::Yes,
        "once a second is nothing"
    );
}
