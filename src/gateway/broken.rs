//! Parts that must not end before they are told to: without one of them mails are still answered 250,
//! and nobody is told of them, or of what is wrong with the gateway.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What has broken first. All clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Broken(watch::Sender<Option<String>>);

impl Broken {
    pub(super) fn tell(&self, reason: String) {
        self.0.send_modify(|first| {
            first.get_or_insert(reason);
        });
    }

    /// Returns with the reason once something has.
    pub(super) async fn told(&self) -> String {
        let mut broken = self.0.subscribe();
        match broken.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Looks after a part until it has ended.
    pub(super) async fn watch(
        self,
        what: &'static str,
        running: JoinHandle<()>,
        stop: CancellationToken,
    ) {
        let ended = running.await;
        if stop.is_cancelled() {
            return;
        }
        self.tell(match ended {
            Ok(()) => format!("{what} has ended"),
            Err(error) => format!("{what}: {error}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_or_ends_untimely_is_told_and_the_first_counts() {
        let broken = Broken::default();
        let running = tokio::spawn(async { panic!("on purpose") });
        let watching = broken
            .clone()
            .watch("the pipeline", running, CancellationToken::new());
        watching.await;
        let running = tokio::spawn(async {});
        let watching = broken
            .clone()
            .watch("the door", running, CancellationToken::new());
        watching.await;
        let told = broken.told().await;
        assert!(told.starts_with("the pipeline: "), "{told}");
        assert!(told.contains("on purpose"), "{told}");
    }

    #[tokio::test]
    async fn a_part_that_was_told_to_stop_may_end() {
        let (broken, stop) = (Broken::default(), CancellationToken::new());
        stop.cancel();
        let running = tokio::spawn(async {});
        broken.clone().watch("the pipeline", running, stop).await;
        assert!(broken.0.borrow().is_none());
    }
}
