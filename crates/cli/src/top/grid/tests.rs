use super::*;
use crate::top::example::rates;

fn shown(grid: Grid, width: usize) -> Vec<String> {
    let (grid, widths) = grid.fit(width);
    grid.lines(&widths)
}

#[test]
fn ports_stand_by_what_they_carry_with_the_reasons_of_drops() {
    assert_eq!(
        shown(ports(&rates(), Order::Rate), 100),
        [
            "PORT     KIND        LINK  RX-F/S  RX-BIT/S  TX-F/S  TX-BIT/S  DROPS/S  WHY",
            "lan/web  vhost-user  up      812k     9.41G   10.0k     5.12M       60  no_buffers too_long",
            "lan/db   vhost-net   down       -         -       -         -        -",
        ]
    );
}

#[test]
fn narrow_screens_lose_the_columns_that_tell_least() {
    assert_eq!(
        shown(ports(&rates(), Order::Name), 60),
        [
            "PORT     RX-BIT/S  TX-BIT/S  DROPS/S  WHY",
            "lan/db          -         -        -",
            "lan/web     9.41G     5.12M       60  no_buffers too_long",
        ]
    );
    for line in shown(ports(&rates(), Order::Drops), 36) {
        assert!(line.chars().count() <= 36, "{line}");
    }
    assert_eq!(
        shown(ports(&rates(), Order::Drops), 33)[1],
        "la~b     9.41G     5.12M       60"
    );
}

#[test]
fn long_names_are_cut_in_the_middle_before_numbers_leave() {
    let mut rates = rates();
    rates.ports[1].name = format!("network/{}7", "x".repeat(55));
    rates.threads[0].name = "a\nb\x1b[2J".into();
    assert_eq!(
        shown(ports(&rates, Order::Rate), 80)[..2],
        [
            "PORT                   RX-F/S  RX-BIT/S  TX-F/S  TX-BIT/S  DROPS/S  WHY",
            "network/xx~xxxxxxxxx7    812k     9.41G   10.0k     5.12M       60  no_buffers ~",
        ]
    );
    let told = shown(threads(&rates, Order::Rate), 80).join("\n");
    assert!(told.contains("a?b?[2J"), "{told}");
}

#[test]
fn queues_say_which_worker_serves_them() {
    assert_eq!(
        shown(queues(&rates(), Order::Rate), 100)[..2],
        [
            "PORT          Q  SERVED-BY  RX-F/S  RX-BIT/S  TX-F/S  TX-BIT/S  KICKS/S  CALLS/S",
            "lan/web       0  worker-1     812k     9.41G   10.0k     5.12M      300        -",
        ]
    );
}

#[test]
fn the_busiest_thread_comes_first_and_idle_helpers_are_left_out() {
    assert_eq!(
        shown(threads(&rates(), Order::Rate), 100),
        [
            "OWNER   ROLE    THREAD        TID     CPU    %CPU",
            "switch  worker  worker-1       12       3    98.7",
            "web     vcpu    CPU 0/KVM      34       1    45.0",
            "web     vhost   vhost-33       35       -       -",
        ]
    );
}
