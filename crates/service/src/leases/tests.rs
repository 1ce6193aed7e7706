use super::*;

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

fn client(number: u8) -> [Client; 1] {
    [Client::Mac(mac(number))]
}

/// Lends 10.0.0.2 to 10.0.0.`last`.
fn pool(last: u8) -> Pool {
    Pool::new(address(1)..=address(last), vec![address(1)])
}

/// Offers, lends and gives what the client gets.
fn take(pool: &mut Pool, number: u8, now: u64) -> Result<Ipv4Addr, Refusal> {
    let (address, _) = pool.offer(&client(number), None, now)?;
    pool.lend(&client(number), mac(number), address, None, now, now + 100)?;
    Ok(address)
}

#[test]
fn every_address_is_lent_once_and_then_none_is_left() {
    let mut pool = pool(20);
    let mut lent: Vec<_> = (0..19).map(|n| take(&mut pool, n, 0).unwrap()).collect();
    assert_eq!(take(&mut pool, 99, 0), Err(Refusal::Exhausted));
    assert_eq!((pool.free(0), pool.free(101)), (0, 19));
    lent.sort();
    lent.dedup();
    assert_eq!((lent.len(), lent[0]), (19, address(2)));
}

#[test]
fn an_expired_address_is_its_clients_until_somebody_needs_it() {
    let mut pool = pool(3);
    let first = take(&mut pool, 1, 0).unwrap();
    let second = take(&mut pool, 2, 50).unwrap();
    assert_eq!(take(&mut pool, 1, 200), Ok(first));
    // The second's ended longest ago.
    assert_eq!(take(&mut pool, 3, 200), Ok(second));
    assert_eq!(pool.offer(&client(2), None, 200), Err(Refusal::Exhausted));
}

#[test]
fn an_offer_is_kept_for_its_client_and_forgotten_after_a_while() {
    let mut pool = pool(2);
    assert_eq!(pool.offer(&client(1), None, 0), Ok((address(2), true)));
    assert_eq!(pool.offer(&client(1), None, 1), Ok((address(2), true)));
    assert_eq!(pool.offer(&client(2), None, 1), Err(Refusal::Exhausted));
    assert_eq!(pool.offered_to(address(2), 1), Some(&client(1)[0]));
    assert_eq!(pool.offer(&client(2), None, 100), Ok((address(2), true)));
    pool.forget_offer(&client(2));
    assert_eq!(pool.offer(&client(3), None, 100), Ok((address(2), true)));
}

#[test]
fn a_wish_is_granted_if_the_address_is_free() {
    let mut pool = pool(20);
    assert_eq!(
        pool.offer(&client(1), Some(address(9)), 0),
        Ok((address(9), true))
    );
    for wish in [address(9), address(1), address(21), Ipv4Addr::BROADCAST] {
        let (given, _) = pool.offer(&client(2), Some(wish), 0).unwrap();
        assert!(
            given != wish && pool.range.contains(&u32::from(given)),
            "{given}"
        );
        pool.forget_offer(&client(2));
    }
}

#[test]
fn who_is_bound_to_an_address_gets_it_and_nobody_else_does() {
    let mut pool = pool(3);
    let id = Client::Id(vec![1, 2, 3]);
    let bound = |last, client: &Client, name: &str| Reservation {
        address: address(last),
        client: client.clone(),
        name: Some(name.into()),
    };
    pool.set_reservations([bound(2, &client(1)[0], "web"), bound(200, &id, "db")]);
    assert_eq!(take(&mut pool, 7, 0), Ok(address(3)));
    assert_eq!(take(&mut pool, 8, 0), Err(Refusal::Exhausted));
    assert_eq!(
        pool.lend(&client(8), mac(8), address(2), None, 0, 9),
        Err(Refusal::NotYours)
    );
    assert_eq!(take(&mut pool, 1, 0), Ok(address(2)));
    // By identifier before hardware address, and outside of the range.
    let clients = [id.clone(), client(9)[0].clone()];
    assert_eq!(pool.offer(&clients, None, 0), Ok((address(200), false)));
    assert_eq!(pool.find("db", 0), Some(address(200)));
    assert_eq!(pool.name_of(address(2), 0), Some("web"));
}

#[test]
fn a_name_is_one_clients_alone() {
    let mut pool = pool(20);
    pool.set_reservations([Reservation {
        address: address(30),
        client: client(30)[0].clone(),
        name: Some("web".into()),
    }]);
    let mut lend = |number: u8, name: &str, now| {
        let changes = pool.lend(
            &client(number),
            mac(number),
            address(number),
            Some(name.into()),
            now,
            now + 100,
        );
        changes.unwrap().pop().unwrap().lease.name
    };
    assert_eq!(lend(2, "db", 0).as_deref(), Some("db"));
    assert_eq!(lend(2, "db", 1).as_deref(), Some("db"));
    assert_eq!(lend(3, "db", 1), None);
    assert_eq!(lend(3, "web", 1), None);
    assert_eq!(lend(3, "db", 500).as_deref(), Some("db"));
}

#[test]
fn what_is_released_or_declined_is_only_by_who_has_it() {
    let mut pool = pool(3);
    let given = take(&mut pool, 1, 0).unwrap();
    assert_eq!(pool.release(&client(2), given, 5), None);
    assert_eq!(pool.decline(&client(2), mac(2), given, 5), None);
    let Some(Change { lease, .. }) = pool.release(&client(1), given, 5) else {
        panic!("kept")
    };
    assert_eq!((lease.state, lease.expires), (State::Free, 5));
    assert_eq!(pool.release(&client(1), given, 6), None);
    assert_eq!(take(&mut pool, 1, 7), Ok(given));
    let Some(Change { lease, .. }) = pool.decline(&client(1), mac(1), given, 8) else {
        panic!("not declined")
    };
    assert_eq!(lease.state, State::Declined);
    let other = take(&mut pool, 1, 9).unwrap();
    assert_ne!(other, given);
    assert_eq!(take(&mut pool, 2, 9), Err(Refusal::Exhausted));
    let (again, _) = pool
        .offer(&client(2), Some(given), 9 + DECLINED_SECONDS)
        .unwrap();
    assert_eq!(again, given);
}

#[test]
fn a_client_that_takes_another_address_gives_back_the_first() {
    let mut pool = pool(20);
    let first = take(&mut pool, 1, 0).unwrap();
    let second = if first == address(2) {
        address(3)
    } else {
        address(2)
    };
    let changes = pool.lend(&client(1), mac(1), second, None, 1, 100).unwrap();
    assert_eq!(changes.len(), 2);
    assert_eq!(
        (changes[0].lease.address, changes[0].lease.state),
        (first, State::Free)
    );
    assert_eq!(pool.free(2), 18);
}

#[test]
fn what_was_committed_makes_the_same_pool() {
    let mut pool = pool(20);
    let mut committed = self::pool(20);
    for number in [1, 2, 3, 2] {
        let (address, _) = pool.offer(&client(number), None, 0).unwrap();
        let changes = pool.lend(
            &client(number),
            mac(number),
            address,
            Some(format!("vm{number}")),
            0,
            100,
        );
        for Change { lease, .. } in changes.unwrap() {
            committed.restore(lease);
        }
    }
    pool.release(&client(1), *pool.by_client.get(&client(1)[0]).unwrap(), 3)
        .into_iter()
        .for_each(|Change { lease, .. }| committed.restore(lease));
    assert!(pool.leases().eq(committed.leases()));
    assert_eq!(pool.by_client, committed.by_client);
    assert_eq!(committed.find("vm2", 5), pool.find("vm2", 5));
}

#[test]
fn a_name_that_is_free_again_is_found_where_it_is_now() {
    let mut pool = pool(20);
    let lend = |pool: &mut Pool, number: u8, now| {
        let name = Some("web".to_owned());
        pool.lend(
            &client(number),
            mac(number),
            address(number),
            name,
            now,
            now + 100,
        )
        .unwrap();
    };
    lend(&mut pool, 9, 0);
    lend(&mut pool, 2, 200);
    assert_eq!(pool.find("web", 200), Some(address(2)));
    let bound = Reservation {
        address: address(30),
        client: client(30)[0].clone(),
        name: Some("web".into()),
    };
    pool.set_reservations([bound]);
    assert_eq!(pool.find("web", 200), Some(address(30)));
    pool.set_reservations([]);
    assert_eq!(pool.find("web", 200), Some(address(2)));
    assert_eq!(pool.find("web", 400), None);
    assert_eq!((&pool, 250).name_of(address(2)).as_deref(), Some("web"));
}

/// All of it that decides, without what is only under way.
fn picture(pool: &Pool) -> String {
    let by_client: BTreeMap<_, _> = pool.by_client.iter().collect();
    format!("{:?} {by_client:?} {:?}", pool.leases, pool.by_name)
}

#[test]
fn what_could_not_be_committed_is_taken_back() {
    let mut pool = pool(20);
    let lend = |pool: &mut Pool, number: u8, last: u8, now: u64| {
        let name = Some(format!("vm{number}"));
        pool.lend(
            &client(number),
            mac(number),
            address(last),
            name,
            now,
            now + 100,
        )
        .unwrap()
    };
    lend(&mut pool, 1, 2, 0);
    lend(&mut pool, 2, 3, 0);
    lend(&mut pool, 2, 4, 1);
    let before = picture(&pool);
    // A new client, one that moves to where another was, one that gives back, one that finds its address in use.
    let mut changes = lend(&mut pool, 7, 9, 5);
    changes.extend(lend(&mut pool, 1, 3, 6));
    changes.extend(pool.release(&client(2), address(4), 7));
    changes.extend(pool.decline(&client(7), mac(7), address(9), 8));
    assert_ne!(picture(&pool), before);
    pool.undo(changes);
    assert_eq!(picture(&pool), before);
    assert_eq!(pool.find("vm7", 9), None);
    assert_eq!(pool.offer(&client(2), None, 9), Ok((address(4), false)));
}

#[test]
fn a_client_that_moved_gets_its_newest_address_whatever_the_order_of_rows() {
    let mut pool = pool(20);
    pool.lend(&client(1), mac(1), address(9), None, 0, 100)
        .unwrap();
    pool.lend(&client(1), mac(1), address(5), None, 10, 110)
        .unwrap();
    let mut rows: Vec<Lease> = pool.leases().cloned().collect();
    for _ in 0..2 {
        let mut again = self::pool(20);
        rows.iter().cloned().for_each(|lease| again.restore(lease));
        assert_eq!(
            again.offer(&client(1), None, 20),
            Ok((address(5), false)),
            "{rows:?}"
        );
        rows.reverse();
    }
}

#[test]
fn an_address_that_somebody_uses_is_offered_to_nobody_else() {
    let mut pool = pool(3);
    assert_eq!(pool.hear(mac(66), address(2), 0), None);
    assert_eq!(
        pool.offer(&client(1), Some(address(2)), 0),
        Ok((address(3), true))
    );
    assert_eq!(pool.offer(&client(2), None, 0), Err(Refusal::Exhausted));
    assert_eq!(
        pool.lend(&client(2), mac(2), address(2), None, 0, 100),
        Err(Refusal::NotYours)
    );
    // Who uses it may have it, and others when it was not heard for a while.
    let by_name = [Client::Id(vec![1, 2]), client(66)[0].clone()];
    assert_eq!(
        pool.clone().offer(&by_name, Some(address(2)), 1),
        Ok((address(2), true))
    );
    assert_eq!(
        pool.offer(&client(2), None, SEEN_SECONDS),
        Ok((address(2), true))
    );
}

#[test]
fn a_lie_about_an_address_takes_it_from_nobody_who_has_it() {
    let mut pool = pool(3);
    let lent = take(&mut pool, 1, 0).unwrap();
    let bound = Reservation {
        address: address(if lent == address(2) { 3 } else { 2 }),
        client: client(7)[0].clone(),
        name: None,
    };
    pool.set_reservations([bound.clone()]);
    for address in [lent, bound.address, address(1), address(200)] {
        assert_eq!(pool.hear(mac(66), address, 1), None);
    }
    assert_eq!(pool.seen.len(), 2, "only addresses to lend are remembered");
    assert_eq!(take(&mut pool, 1, 2), Ok(lent));
    assert_eq!(take(&mut pool, 7, 2), Ok(bound.address));
    // What its client does with it while it has it keeps it from nobody afterwards.
    assert_eq!(pool.hear(mac(7), bound.address, 3), None);
    pool.set_reservations([]);
    assert!(pool.release(&client(7), bound.address, 4).is_some());
    assert_eq!(take(&mut pool, 2, 5), Ok(bound.address));
}
