//! How the guest's instructions are executed: by the processor (KVM), or by translation (TCG).
//!
//! `/dev/kvm` being there says little: in a virtual machine without working nested virtualization it opens, and QEMU then aborts or
//! spins. So something is booted once, with a time limit: the kernel that the machine is to boot, or a boot sector that ends QEMU
//! with an exit code of its own. The answer is kept for this boot of the host, this QEMU and this kernel.

use std::{
    env, fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{Qemu, nic::mac_of};

/// How a guest is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation: slow, but it runs everywhere.
    Tcg,
}

impl Accel {
    /// The processor that a guest sees.
    pub fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// Which one works here, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The better one of those that work.
    pub accel: Accel,
    /// One clause for people.
    pub why: String,
}

/// How long something small may take to boot with KVM: it does in a second, where it does.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at whether QEMU has ended.
const POLL: Duration = Duration::from_millis(20);

/// What the boot sector writes to the port of QEMU's `isa-debug-exit`, which ends QEMU with twice that and one.
const CODE: u8 = 0x10;
const EXIT: i32 = 2 * CODE as i32 + 1;

/// Finds out, or remembers. `kernel` is the one that the machine boots, if it has no boot loader of its own.
pub fn choose(qemu: &Qemu, kernel: Option<&Path>) -> Choice {
    match fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(_) => (),
        Err(error) => {
            let way_out = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    ": add the user to the group of /dev/kvm (`ls -l /dev/kvm`)"
                }
                _ => "",
            };
            return Choice {
                accel: Accel::Tcg,
                why: format!("/dev/kvm cannot be opened ({error}){way_out}"),
            };
        }
    }
    let cache = cache(qemu, kernel);
    if let Some(known) = cache
        .as_deref()
        .and_then(|path| fs::read_to_string(path).ok())
    {
        return Choice::of_probe(known.strip_prefix("no: ").map(str::to_owned));
    }
    let failure = probe(qemu, kernel).err();
    if let Some(path) = cache {
        let text = match &failure {
            None => "yes".to_owned(),
            Some(why) => format!("no: {why}"),
        };
        // Without it the same is found out again.
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(path, text);
    }
    Choice::of_probe(failure)
}

impl Choice {
    fn of_probe(failure: Option<String>) -> Self {
        match failure {
            None => Self {
                accel: Accel::Kvm,
                why: "/dev/kvm boots".into(),
            },
            Some(why) => Self {
                accel: Accel::Tcg,
                why: format!("/dev/kvm is there but boots nothing ({why})"),
            },
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.accel {
            Accel::Kvm => write!(f, "KVM, because {}", self.why),
            Accel::Tcg => write!(f, "TCG, which is slow, because {}", self.why),
        }
    }
}

/// Boots with KVM; in the error, why that does not go.
fn probe(qemu: &Qemu, kernel: Option<&Path>) -> Result<(), String> {
    let sector = env::temp_dir().join(format!("ringway-boot-{}", std::process::id()));
    let mut command = Command::new(&qemu.program);
    command
        .args(["-accel", "kvm", "-cpu", Accel::Kvm.cpu(), "-m", "256"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"]);
    let wanted = match kernel {
        // Without a root file system it panics, which is a restart and so the end.
        Some(kernel) => {
            command.arg("-kernel").arg(kernel);
            command.args(["-append", "panic=-1"]);
            0
        }
        None => {
            fs::write(&sector, boot_sector()).map_err(|error| error.to_string())?;
            let file = sector.display().to_string().replace(',', ",,");
            command
                .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
                .args(["-drive", &format!("file={file},format=raw,if=ide")]);
            EXIT
        }
    };
    let ended = run(&mut command, LIMIT);
    let _ = fs::remove_file(&sector);
    let (status, said) = ended?;
    if status == Some(wanted) {
        return Ok(());
    }
    let said = said.lines().next().unwrap_or_default();
    let said = said.split_once(": ").map_or(said, |(_, said)| said);
    Err(match said.is_empty() {
        true => "QEMU ended early".into(),
        false => format!("QEMU: {said}"),
    })
}

/// The exit code, if it was no signal, and what stands on standard error.
fn run(command: &mut Command, limit: Duration) -> Result<(Option<i32>, String), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let end = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < end => thread::sleep(POLL),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("nothing within {} s", limit.as_secs()));
            }
        }
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), said))
}

/// `mov al, CODE; out 0xf4, al; hlt`, and the mark of a boot sector.
fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..5].copy_from_slice(&[0xb0, CODE, 0xe6, 0xf4, 0xf4]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Where the answer is kept; nowhere without a home.
fn cache(qemu: &Qemu, kernel: Option<&Path>) -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let folder = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&variable("HOME")?).join(".cache")))?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let mut key = format!("{} {}", boot.trim(), qemu.version);
    for file in [Some(&*qemu.program), kernel].into_iter().flatten() {
        let data = fs::metadata(file).ok()?;
        key += &format!(" {} {} {}", file.display(), data.size(), data.mtime());
    }
    // A short name for the key: the same text gives the same number.
    let name: String = mac_of(&key).0[1..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(folder.join("ringway").join(format!("kvm-{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_ends_a_real_qemu_with_its_code() {
        // By translation, which works everywhere where there is a QEMU.
        let Ok(qemu) = Qemu::find(None) else { return };
        let path = env::temp_dir().join(format!("ringway-sector-{}", std::process::id()));
        fs::write(&path, boot_sector()).unwrap();
        let mut command = Command::new(&qemu.program);
        command
            .args([
                "-accel",
                "tcg",
                "-m",
                "64",
                "-nodefaults",
                "-display",
                "none",
            ])
            .args([
                "-no-reboot",
                "-device",
                "isa-debug-exit,iobase=0xf4,iosize=1",
            ])
            .arg("-drive")
            .arg(format!("file={},format=raw,if=ide", path.display()));
        let ended = run(&mut command, Duration::from_secs(60));
        fs::remove_file(&path).unwrap();
        assert_eq!(ended.unwrap().0, Some(EXIT));
    }

    #[test]
    fn what_never_ends_is_ended_and_said() {
        let started = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(error.contains("nothing within"), "{error}");
        let (status, said) = run(
            Command::new("sh").args(["-c", "echo out of luck >&2; exit 3"]),
            Duration::from_secs(60),
        )
        .unwrap();
        assert_eq!((status, said.trim()), (Some(3), "out of luck"));
    }

    #[test]
    fn the_choice_says_why() {
        let tcg = Choice::of_probe(Some("QEMU: failed to set MSR 0x10a".into()));
        assert_eq!(tcg.accel, Accel::Tcg);
        assert!(tcg.to_string().contains("MSR 0x10a"), "{tcg}");
        assert_eq!(Choice::of_probe(None).accel, Accel::Kvm);
    }
}
