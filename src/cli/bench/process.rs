//! A child process, and what the kernel counts of it. Killed when dropped.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use procfs::process::Process as Counted;

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    counted: Counted,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) rss: u64,
    /// The most that `rss` ever was.
    pub(super) rss_peak: u64,
    /// Shared pages count for each process in part only.
    pub(super) pss: u64,
}

impl Process {
    /// With stdout as a pipe.
    pub(super) fn spawn(command: &mut Command) -> anyhow::Result<Process> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}", command.get_program().display()))?;
        let counted = i32::try_from(child.id())
            .map_err(anyhow::Error::from)
            .and_then(|id| Ok(Counted::new(id)?));
        match counted {
            Ok(counted) => Ok(Process { child, counted }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context("/proc tells nothing of the child"))
            }
        }
    }

    /// The program that it runs now: a wrapper may have become another one.
    pub(super) fn program(&self) -> anyhow::Result<PathBuf> {
        Ok(self.counted.exe()?)
    }

    pub(super) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Of all its threads, in the kernel and outside of it; counted in steps of 10 ms.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = self.counted.stat()?;
        let ticks = (stat.utime + stat.stime) as f64;
        let second = procfs::ticks_per_second() as f64;
        Ok(Duration::from_secs_f64(ticks / second))
    }

    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        let status = self.counted.status()?;
        let rollup = self.counted.smaps_rollup()?;
        let pss = rollup.memory_map_rollup.0.first();
        let pss = pss.and_then(|map| map.extension.map.get("Pss").copied());
        Ok(Memory {
            rss: status.vmrss.unwrap_or(0) * 1024,
            rss_peak: status.vmhwm.unwrap_or(0) * 1024,
            pss: pss.context("/proc tells no Pss")?,
        })
    }

    pub(super) fn descriptors(&self) -> anyhow::Result<usize> {
        Ok(self.counted.fd_count()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
