//! Starting the switch, finding one that runs, and noticing when it ends.

use std::fs::File;
use std::io;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ringway_api::control::Client;
use ringway_host::ready;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::UnixStream;
use tokio::process::Command;

use super::{PATIENCE, SwitchError, SwitchProcess};

/// How often a switch that starts is looked for: it says on its control socket alone that it serves, and its output is a file,
/// since a pipe of ours would break when we go.
const LOOK: Duration = Duration::from_millis(10);

impl SwitchProcess {
    /// Adopts the switch that answers, or starts one. Gives whether it was there already.
    pub(crate) async fn adopt_or_start(self: &Arc<Self>) -> Result<bool, SwitchError> {
        if let Some(pid) = self.answers().await {
            self.pid.store(pid, Ordering::Relaxed);
            return Ok(true);
        }
        self.start().await.map(|()| false)
    }

    /// Until the switch has ended; at once if there is none.
    pub(crate) async fn ended(&self) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let open = |pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok();
        if let Some(handle) = pid.and_then(Pid::from_raw).and_then(open)
            && let Ok(handle) = ready::watch(handle)
        {
            let _ = handle.readable().await;
        }
        self.pid.store(0, Ordering::Relaxed);
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn start(self: &Arc<Self>) -> Result<(), SwitchError> {
        let failed = |source: io::Error| SwitchError::Start {
            program: self.program.clone(),
            source,
        };
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(failed)?;
        let mut child = Command::new(&self.program)
            .arg("switch")
            .arg("--control")
            .arg(&self.control)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Signals for our group, such as Ctrl-C, are not for the switch.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        let pid = loop {
            if let Some(pid) = self.answers().await {
                break pid;
            }
            let ended = |status: String| SwitchError::Ended {
                status,
                log: self.log.clone(),
            };
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Err(ended(status.to_string()));
            }
            if Instant::now() > deadline {
                let _ = child.kill().await;
                return Err(ended("it did not answer".into()));
            }
            tokio::time::sleep(LOOK).await;
        };
        self.pid.store(pid, Ordering::Relaxed);
        // Whoever has children has to ask what became of them.
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        Ok(())
    }

    /// The process id of the switch that answers on the control socket.
    async fn answers(self: &Arc<Self>) -> Option<u32> {
        let peer = UnixStream::connect(&self.control).await.ok()?;
        // Of whoever listens: the switch.
        let pid = u32::try_from(peer.peer_cred().ok()?.pid()?).ok()?;
        drop(peer);
        let control = self.control.clone();
        let task = tokio::task::spawn_blocking(move || Client::connect(&control, PATIENCE));
        task.await.ok()?.ok().map(|_| pid)
    }
}
