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
    assert_eq!(pool.usage(0), (19, 20));
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
        changes.unwrap().pop().unwrap().0.name
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
    let Some(Change(lease)) = pool.release(&client(1), given, 5) else {
        panic!("kept")
    };
    assert_eq!((lease.state, lease.expires), (State::Free, 5));
    assert_eq!(pool.release(&client(1), given, 6), None);
    assert_eq!(take(&mut pool, 1, 7), Ok(given));
    let Some(Change(lease)) = pool.decline(&client(1), mac(1), given, 8) else {
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
        (changes[0].0.address, changes[0].0.state),
        (first, State::Free)
    );
    assert_eq!(pool.usage(2).0, 1);
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
        for Change(lease) in changes.unwrap() {
            committed.restore(lease);
        }
    }
    pool.release(&client(1), *pool.by_client.get(&client(1)[0]).unwrap(), 3)
        .into_iter()
        .for_each(|Change(lease)| committed.restore(lease));
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
