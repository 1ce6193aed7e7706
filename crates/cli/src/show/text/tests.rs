use super::*;
use crate::show::example;

fn drawn(width: usize, ascii: bool) -> String {
    let look = Look {
        width,
        ascii,
        colours: false,
    };
    text(&example::map(), look)
}

#[test]
fn stages_are_boxes_and_what_passes_stands_between() {
    assert_eq!(
        drawn(60, false),
        "\
web  process 12, NIC n0
┌─ guest web ──────────────────────────────────────────────┐
│ 1 virtual CPU                                            │
│ CPU 0/KVM on CPU 3, 45.0 %                               │
└──────────────────────────────────────────────────────────┘
  ▼ 812k frames/s 9.41G bit/s
  ▲ 10.0k frames/s 5.12M bit/s
┌─ virtio-net-pci ─────────────────────────────────────────┐
│ 1 queue pair, 4 vectors                                  │
└──────────────────────────────────────────────────────────┘
  ▼ ▲  300 kicks/s, 2 calls/s
    60 drops/s: no_buffers 50, too_long 10
┌─ switch ─────────────────────────────────────────────────┐
│ port lan/web                                             │
└──────────────────────────────────────────────────────────┘
"
    );
}

#[test]
fn a_machine_with_two_nics_is_told_about_once() {
    let mut map = example::map();
    map.paths.push(map.paths[0].clone());
    let look = Look {
        width: 60,
        ascii: true,
        colours: false,
    };
    let drawn = text(&map, look);
    assert_eq!(drawn.matches("+- guest web -").count(), 2, "{drawn}");
    assert_eq!(drawn.matches("| 1 virtual CPU ").count(), 1, "{drawn}");
    // Those without a process may be anybody's.
    map.paths.iter_mut().for_each(|path| path.pid = None);
    assert_eq!(text(&map, look).matches("| 1 virtual CPU ").count(), 2);
}

#[test]
fn a_wide_terminal_has_both_directions_in_a_line() {
    let line = "  ▼ 812k frames/s 9.41G bit/s          ▲ 10.0k frames/s 5.12M bit/s\n";
    assert!(drawn(78, false).contains(line), "{}", drawn(78, false));
}

#[test]
fn plain_letters_are_enough_and_no_line_is_too_long() {
    for width in [24, 40, 80, 200] {
        let drawn = drawn(width, true);
        assert!(drawn.is_ascii(), "{drawn}");
        for line in drawn.lines() {
            assert!(line.len() <= width, "{width}: {line}");
        }
    }
    assert!(drawn(60, true).contains("+- guest web -"));
    // Which NIC it is does not give way to the name.
    let mut map = example::map();
    map.paths[0].name = "n".repeat(30);
    let look = Look {
        width: 24,
        ascii: true,
        colours: false,
    };
    let heading = format!("{}~\nprocess 12, NIC n0\n+", "n".repeat(23));
    assert!(text(&map, look).starts_with(&heading));
}

#[test]
fn drops_are_red_where_colours_are_wanted() {
    let look = Look {
        width: 80,
        ascii: false,
        colours: true,
    };
    let drawn = text(&example::map(), look);
    assert!(drawn.contains("\x1b[31m60 drops/s: "), "{drawn}");
    assert_eq!(drawn.matches("\x1b[").count() % 2, 0);
}
