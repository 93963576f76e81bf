//! Connections of HTTP, each within bounds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// For the head of a request to arrive; an idle connection is closed after it too.
const HEAD: Duration = Duration::from_secs(5);

/// A connection is closed after this, or those who read nothing would have all of them.
const LIFE: Duration = Duration::from_secs(60);

/// For requests that are under way when the manager ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until told to stop; then ends what is under way.
pub(in crate::manager) async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (end, ended) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, stream) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => match accepted {
                Some((permit, Ok((stream, _)))) => (permit, stream),
                Some((_, Err(_))) => {
                    // No more files, say: trying again at once would be of no use.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
                None => break,
            },
        };
        let service = TowerToHyperService::new(router.clone());
        let mut ended = ended.clone();
        connections.spawn(async move {
            let _permit = permit;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let over = tokio::select! {
                over = &mut connection => over,
                () = told(&mut ended) => close(connection).await,
                () = sleep(LIFE) => close(connection).await,
            };
            if let Err(error) = over {
                tracing::debug!(target: "larder::manager", event = "connection_failed", error = %error);
            }
        });
    }
    drop(listener);
    let _ = end.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(DRAIN, all).await;
}

type Served = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

/// Ends a connection after the request that is under way, which takes no longer than it may.
async fn close(mut connection: Pin<&mut Served>) -> hyper::Result<()> {
    connection.as_mut().graceful_shutdown();
    timeout(DRAIN, connection).await.unwrap_or(Ok(()))
}

async fn told(ended: &mut watch::Receiver<bool>) {
    // Whoever would tell is gone: that is an end too.
    let _ = ended.wait_for(|ended| *ended).await;
}
