//! The accept loop. warp's own server sets no timer, so that hyper's header timeout never fires; this one does, caps
//! connections, responds to a slow head with a problem document, and drains within a budget when it is to stop.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use runtime::health::Health;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::head::{Served, TimedHeads};
use super::problem::{HEADER_TIMEOUT, INTERNAL};
use super::proxy_protocol;
use crate::auth::address::Peer;
use crate::config::{Proxies, Timeouts};

/// Wait after an accept that failed for lack of file descriptors or memory: they come back as connections end.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Read buffer of a connection, which also caps the head of a request (431 above).
const READ_BUFFER: usize = 64 * 1024;

/// How the server serves.
#[derive(Clone)]
pub(crate) struct Server {
    /// Open connections; more wait in the listener's backlog.
    pub(crate) connections: usize,
    pub(crate) timeouts: Timeouts,
    /// The proxies that begin each connection with a PROXY header, and alone may connect; none where connections begin with a request.
    pub(crate) proxy_protocol: Option<Proxies>,
    pub(crate) routes: BoxedFilter<(Response,)>,
    pub(crate) health: Health,
}

impl Server {
    /// Serves until `stop`, then lets open requests end within the shutdown budget, `beside` with them, which is begun with the server and
    /// ends by itself after `stop`.
    pub(crate) async fn run(
        self,
        listener: TcpListener,
        beside: impl Future<Output = ()> + Send + 'static,
        stop: CancellationToken,
    ) {
        let (tasks, kill) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(kill.clone().run_until_cancelled_owned(beside));
        self.health.ready("ingest");
        self.accept(&listener, &tasks, &kill, &stop).await;
        self.health.stop();
        drop(listener);
        tasks.close();
        if tokio::time::timeout(self.timeouts.shutdown, tasks.wait()).await.is_err() {
            tracing::warn!(
                open = tasks.len(),
                "connections are cut: they did not end within the shutdown budget"
            );
            kill.cancel();
            tasks.wait().await;
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
        tasks: &TaskTracker,
        kill: &CancellationToken,
        stop: &CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(self.connections));
        loop {
            let accept = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = accept => accepted,
            };
            match (place, accepted) {
                (Ok(place), Ok((stream, peer))) => {
                    let requests =
                        Requests { routes: self.routes.clone(), tasks: tasks.clone(), kill: kill.clone() };
                    let (timeouts, proxies, stop) =
                        (self.timeouts, self.proxy_protocol.clone(), stop.clone());
                    let kill = kill.clone();
                    tasks.spawn(async move {
                        let connection = async {
                            let mut stream = stream;
                            if let Some(client) = client(&mut stream, peer, proxies, timeouts.header).await {
                                connection(stream, client, requests, timeouts, stop).await;
                            }
                        };
                        let _ = kill.run_until_cancelled(connection).await;
                        drop(place);
                    });
                }
                (_, Err(error)) => {
                    tracing::warn!(error = %error, "no connection was accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                // Nobody closes this semaphore.
                (Err(_), _) => return,
            }
        }
    }
}

/// Who has connected: the peer, or whom its PROXY header names. None where the connection is to be closed.
async fn client(
    stream: &mut TcpStream,
    peer: SocketAddr,
    proxies: Option<Proxies>,
    limit: Duration,
) -> Option<SocketAddr> {
    let Some(proxies) = proxies else { return Some(peer) };
    let refused = |why: String| tracing::warn!(peer = %peer.ip(), why, "a connection is closed");
    if !proxies.trust(&peer.ip().to_canonical()) {
        refused(
            "its peer is none of ingest.trusted_proxies, and connections begin with a PROXY header".into(),
        );
        return None;
    }
    match tokio::time::timeout(limit, proxy_protocol::read(stream)).await {
        Ok(Ok(named)) => Some(named.unwrap_or(peer)),
        Ok(Err(error)) => {
            refused(error.to_string());
            None
        }
        Err(_) => {
            refused("its PROXY header did not end within ingest.header_timeout_ms".into());
            None
        }
    }
}

/// Serves each request to its end in a task of its own, though its client goes away: a `BEGIN` that is cut off would leave its connection
/// in a transaction that nobody ends, and what the next request writes by it would be lost with the connection.
struct Requests {
    routes: BoxedFilter<(Response,)>,
    tasks: TaskTracker,
    kill: CancellationToken,
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    Requests { routes, tasks, kill }: Requests,
    timeouts: Timeouts,
    stop: CancellationToken,
) {
    // Nagle's algorithm would hold a stream's small events back; a refusal only costs latency.
    let _ = stream.set_nodelay(true);
    let routes = TowerToHyperService::new(warp::service(routes));
    let served = Served::default();
    let timed = served.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        timed.begun();
        let served = tasks.spawn(kill.clone().run_until_cancelled_owned(routes.call(request)));
        let timed = timed.clone();
        let response: BoxFuture<'static, Result<Response, Infallible>> = Box::pin(async move {
            let response = match served.await {
                Ok(Some(response)) => response,
                // A panic of ours, or the end of the gateway.
                _ => Ok(INTERNAL.error().into_response()),
            };
            timed.ended();
            response
        });
        response
    });
    // hyper has timeouts for reading, none for a client that takes nothing of its response.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(timeouts.write_stall));
    let io = TokioIo::new(TimedHeads::new(stream, timeouts.header, served));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper's timer runs from the moment that a connection waits for its next request: the head's own is in `TimedHeads`.
        .header_read_timeout(timeouts.keep_alive)
        .max_buf_size(READ_BUFFER)
        .serve_connection(io, service);
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = &ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
    let Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner();
    // An idle connection is closed without a word; one that began a request gets the reason.
    if stream.has_expired() && !read_buf.is_empty() {
        let _ = stream.write_all(header_timeout().as_bytes()).await;
    }
    let _ = stream.shutdown().await;
}

/// The response to a head that did not end in time, as bytes: hyper has no request to respond to.
fn header_timeout() -> String {
    let body = HEADER_TIMEOUT.error().document().to_string();
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
