use super::*;

fn usage(line: &str) -> Option<String> {
    let words = std::iter::once("ringway").chain(line.split_whitespace());
    let error = Cli::try_parse_from(words).err()?;
    match usage::explain(&error) {
        Err(Failure::Usage(sentence)) => Some(sentence),
        _ => panic!("{line} is no wrong usage"),
    }
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn command_lines_that_scripts_rely_on() {
    for line in [
        "daemon --socket /s --state /d --run /r --config /c",
        "net create lan",
        "net create lan --kind routed --subnet 10.0.0.0/24 --subnet6 fd00::/64 --mtu 9000 --json",
        "net create lan --kind bridge --bridge br0",
        "net list --json --socket /s",
        "net --socket /s list",
        "net show lan --json",
        "net delete lan --force",
        "net apply lan.toml --dry-run",
        "net apply -",
        "port create lan web",
        "port create lan web --path vhost-net --mac 02:00:00:00:00:01 --address 10.0.0.9 --queues 4 --rate 1G --json",
        "port list",
        "port list lan --json",
        "port show lan web",
        "port delete lan web",
        "port set lan web --address none",
        "port set lan web --rate 10M --address 10.0.0.9",
        "lease list lan --json",
        "lease resolve web.lan.ringway",
        "lease bind lan 10.0.0.9 --mac 02:00:00:00:00:01 --name web",
        "lease bind lan 10.0.0.9 --client-id 01ff",
        "lease unbind lan 10.0.0.9",
        "forward add lan 8080 10.0.0.9:80 --protocol udp --listen 192.0.2.1",
        "forward add lan 8000-8010 10.0.0.9",
        "forward list --json",
        "forward delete lan 3",
        "stats --json",
        "vm args disk.img",
        "vm args disk.img --net socket=/a,queues=8 --net lan,model=e1000 --json -- -device virtio-rng-pci",
        "vm args --kernel k --initrd i --append a --cpus 8 --memory 2G --hugepages --numa-node 0 --pin 0-1 --name web --libvirt",
        "vm run disk.img",
        "vm run disk.img --net lan --net lan,model=e1000 --disk-size 10G --ssh-key k --password p --user u --detach --wait 60 -- -S",
        "vm run disk.img --persistent --user-data f --state /s --timeout 5 --run /r",
        "vm list --json",
        "vm show web --json",
        "vm stop web --force",
        "vm console web",
        "vm ssh web -l root uname -a",
        "vm pin web --vcpus 2-5 --emulator 0 --io 1",
        "vm pin --pid 7 --reset",
        "vm args disk.img --persistent --cloud-hypervisor --socket /s",
        "bench paths --paths tap,vhost-net --queues 1,2 --seconds 0.5 --rounds 5 --quick --cpus 0-1 --qemu q --json --out o --svg s --doc d --against a",
        "bench paths --guest disk.qcow2 --kernel k --initrd i --append a",
        "bench paths --kernel k --initrd i",
        "bench paths --from f --svg s",
        "bench agent",
        "completions bash",
        "man /tmp/man",
    ] {
        assert_eq!(usage(line), None, "{line}");
    }
}

#[test]
fn command_lines_that_cannot_be_meant() {
    for (line, parts) in [
        ("net", &["subcommand", "--help"][..]),
        ("net crate lan", &["'crate'", "create"]),
        ("net create a_b", &["\"a_b\" is no name"]),
        ("net create lan --kind natt", &["'natt'", "nat"]),
        ("net create lan --kind bridge", &["--bridge"]),
        ("net create lan --subnet 10.0.0.0", &["--subnet 10.0.0.0"]),
        ("net create lan --mtu 100", &["--mtu 100", "576..=65521"]),
        ("port create lan", &["<NAME>"]),
        ("port create lan web --queues 0", &["--queues 0", "1..=128"]),
        (
            "port create lan web --mac 02",
            &["--mac 02", "six hexadecimal"],
        ),
        (
            "port set lan web --rate fast",
            &["--rate fast", "bits per second", "or none"],
        ),
        (
            "lease bind lan 10.0.0.9 --mac 02:00:00:00:00:01 --client-id 01",
            &["--client-id"],
        ),
        ("forward add lan 0 10.0.0.9", &["\"0\" names no ports"]),
        ("forward add lan 80 web", &["IPv4 address"]),
        ("vm args", &["<IMAGE>"]),
        (
            "vm args a --net socket=/a,model=e1000",
            &["--net socket=/a,model=e1000", "path=tap for e1000"],
        ),
        ("vm args a --memory 1T", &["--memory 1T", "512M"]),
        (
            "vm run a --persistent --disk-size 1G",
            &["--persistent", "--disk-size"],
        ),
        ("vm run a --wait 1", &["--detach"]),
        ("vm pin", &["<NAME>"]),
        ("vm pin web --pid 7", &["--pid"]),
        ("vm pin web --reset --vcpus 0", &["--reset"]),
        ("vm args a --pin x", &["--pin x", "0,2-3"]),
        (
            "bench paths --paths tapp",
            &["--paths tapp", "vhost-net, tap"],
        ),
        ("bench paths --queues 0", &["--queues 0", "1 to 128"]),
        ("bench paths --seconds 0", &["--seconds 0", "0.1 to 3600"]),
        ("bench paths --initrd i", &["--kernel"]),
        ("bench paths --kernel k --append a", &["--guest"]),
        ("bench paths --from f --quick", &["--quick"]),
        ("completions tcsh", &["'tcsh'", "bash"]),
    ] {
        let sentence = usage(line).unwrap_or_else(|| panic!("{line} is accepted"));
        for part in parts {
            assert!(sentence.contains(part), "{line}: {sentence}");
        }
    }
}

#[test]
fn what_ringway_alone_says_can_be_typed() {
    let welcome = print::welcome();
    let lines: Vec<_> = welcome
        .lines()
        .filter_map(|line| line.strip_prefix("  ringway "))
        .collect();
    assert_eq!(lines.len(), 3, "{welcome}");
    for line in lines {
        assert_eq!(usage(line), None, "{line}");
    }
}

#[test]
fn each_verb_has_a_manual_page_and_a_description() {
    let mut verbs = vec![Cli::command()];
    let mut pages = 0;
    while let Some(verb) = verbs.pop() {
        let name = verb.get_name().to_owned();
        assert!(verb.get_about().is_some(), "{name} has no description");
        let mut page = Vec::new();
        clap_mangen::Man::new(verb.clone())
            .render(&mut page)
            .unwrap();
        assert!(!page.is_empty(), "{name} has no page");
        pages += 1;
        verbs.extend(verb.get_subcommands().cloned());
    }
    assert!(pages > 25, "{pages} pages");
}

#[test]
fn one_of_two_options_is_asked_for_by_both_names() {
    for (line, options) in [
        ("port set lan web", ["--address", "--rate"]),
        ("lease bind lan 10.0.0.9", ["--mac", "--client-id"]),
    ] {
        let words = std::iter::once("ringway").chain(line.split(' '));
        let Ok(cli) = Cli::try_parse_from(words) else {
            panic!("{line} is not parsed");
        };
        match perform(cli.verb) {
            Err(Failure::Usage(sentence)) => {
                assert!(
                    options.iter().all(|option| sentence.contains(option)),
                    "{sentence}"
                );
            }
            _ => panic!("{line} is done"),
        }
    }
}
