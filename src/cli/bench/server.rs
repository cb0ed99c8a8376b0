//! What serves beside the gateway: on a thread of its own with one single-threaded runtime.

use std::net::TcpListener;

use tokio::sync::oneshot;

/// Serves until what is returned is dropped.
pub(super) fn start<F>(
    name: &str,
    listener: TcpListener,
    serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
) -> anyhow::Result<oneshot::Sender<()>>
where
    F: Future<Output = ()>,
{
    let (stop, stopped) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                    return;
                };
                tokio::select! {
                    () = serve(listener) => {}
                    _ = stopped => {}
                }
            });
        })?;
    Ok(stop)
}
