//! The accept loop. warp's own server sets no timer, so that hyper's header timeout never fires; this one does, caps
//! connections, answers a slow head with a problem document, and drains within a budget when told to stop.

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
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::config::Timeouts;
use crate::error::problem;
use crate::gateway::Gateway;
use crate::stall::Stalling;

/// Wait after an accept that failed for lack of file descriptors or memory: they come back as connections end.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Read buffer of a connection, which also caps the head of a request (431 above).
const READ_BUFFER: usize = 64 * 1024;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves until `stop`, then lets open requests end within the shutdown budget. Runs the sweeper of reserved uploads beside
/// it: a gateway that takes uploads also sees to those that a crash left behind.
pub async fn serve(listener: TcpListener, gateway: Gateway, stop: CancellationToken) {
    let timeouts = gateway.config().timeouts;
    let places = Arc::new(Semaphore::new(gateway.config().limits.connections));
    let routes = crate::routes::routes(gateway.clone(), stop.clone());
    let (tasks, kill) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn({
        let (gateway, stop, kill) = (gateway.clone(), stop.clone(), kill.clone());
        async move {
            tokio::select! {
                () = kill.cancelled() => {}
                () = gateway.sweep(stop) => {}
            }
        }
    });
    gateway.health().ready("ingest");
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept => accepted,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, peer))) => {
                let connection = connection(stream, peer, routes.clone(), timeouts, stop.clone());
                let kill = kill.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = kill.cancelled() => {}
                        () = connection => {}
                    }
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(error = %error, "no connection was accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
            // Nobody closes this semaphore.
            (Err(_), _) => break,
        }
    }
    gateway.health().stop();
    drop(listener);
    tasks.close();
    if tokio::time::timeout(timeouts.shutdown, tasks.wait()).await.is_err() {
        tracing::warn!(
            open = tasks.len(),
            "connections are cut: they did not end within the shutdown budget"
        );
        kill.cancel();
        tasks.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: BoxedFilter<(Response,)>,
    timeouts: Timeouts,
    stop: CancellationToken,
) {
    // Nagle's algorithm would hold a stream's small events back; a refusal only costs latency.
    let _ = stream.set_nodelay(true);
    let routes = TowerToHyperService::new(warp::service(routes));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let answer: BoxFuture<'static, Result<Response, Infallible>> = Box::pin(routes.call(request));
        answer
    });
    let io = TokioIo::new(Stalling::new(stream, timeouts.write_stall));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.header)
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
    let slow_head = ended.as_ref().is_err_and(hyper::Error::is_timeout);
    if let Err(error) = &ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
    let Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner();
    // An idle connection is closed without a word; one that began a request is told why.
    if slow_head && !read_buf.is_empty() {
        let _ = stream.write_all(header_timeout().as_bytes()).await;
    }
    let _ = stream.shutdown().await;
}

/// The answer to a head that did not end in time, as bytes: hyper has no request to answer.
fn header_timeout() -> String {
    let body =
        problem(408, "header_timeout", "Head too slow", "the request's head did not end in time").to_string();
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
