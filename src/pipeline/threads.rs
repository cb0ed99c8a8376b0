//! The threads that read mails.
//!
//! Those of a gateway are its own and give way: where cores are few, a burst of mails is stored and
//! answered before it is read. Nothing else runs on them, as a thread that has become nice stays so.

use std::io;
use std::time::Duration;

use procfs::process::Process;
use rustix::thread::Pid;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

#[cfg(target_os = "linux")]
use crate::limits::READING_NICENESS;
use crate::limits::READING_THREAD_KEPT;

/// Where mails are read.
#[derive(Debug)]
pub struct Threads {
    handle: Handle,
    own: Option<Runtime>,
}

impl Threads {
    /// Threads of their own, nicer than the door's.
    ///
    /// # Errors
    /// The system has none.
    pub fn nice() -> io::Result<Threads> {
        let runtime = Builder::new_current_thread()
            .thread_name("reading")
            .thread_keep_alive(READING_THREAD_KEPT)
            .on_thread_start(give_way)
            .build()?;
        // The first one; where there is none to be had, a start fails and not a mail.
        drop(runtime.spawn_blocking(|| ()));
        Ok(Threads {
            handle: runtime.handle().clone(),
            own: Some(runtime),
        })
    }

    /// Those of the present runtime: a paused clock stands still while one of them is busy.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn shared() -> Threads {
        Threads {
            handle: Handle::current(),
            own: None,
        }
    }

    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn_blocking(work)
    }
}

/// A thread of this process, as long as it has not ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thread(Pid);

impl Thread {
    pub(super) fn current() -> Thread {
        Thread(rustix::thread::gettid())
    }

    /// How long it has had a core since it began; `None` where the system does not tell.
    pub(super) fn cpu_time(self) -> Option<Duration> {
        let task = Process::myself().ok()?.task_from_tid(self.0.as_raw_pid());
        let counted = task.ok()?.schedstat().ok()?;
        Some(Duration::from_nanos(counted.sum_exec_runtime))
    }
}

impl Drop for Threads {
    /// A mail whose reading does not end keeps nobody waiting.
    fn drop(&mut self) {
        if let Some(runtime) = self.own.take() {
            runtime.shutdown_background();
        }
    }
}

/// While nothing else wants the core, a nice thread is as fast as another. On Linux each has a niceness
/// of its own; elsewhere it would be that of the process.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Ok(now) = rustix::process::getpriority_process(None) {
        // Where it is refused, reading goes on as it is.
        let _ = rustix::process::setpriority_process(None, now.saturating_add(READING_NICENESS));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_that_reads_gives_way() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let threads = Threads::nice().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        drop(threads.spawn(move || tell.send(niceness()).unwrap()));
        let lower = (before + READING_NICENESS).min(19); // nothing is lower than 19
        assert_eq!(told.recv().unwrap(), lower);
        assert_eq!(niceness(), before);
    }

    #[test]
    fn a_thread_is_counted_alone() {
        let used = || Thread::current().cpu_time().unwrap();
        let some = Duration::from_millis(50);
        while used() < some {}
        assert!(std::thread::spawn(used).join().unwrap() < some);
    }
}
