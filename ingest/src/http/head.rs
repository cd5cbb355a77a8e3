//! The time that a request's head may take, apart from the time that a connection may wait for its next request. hyper has one timer for
//! both; a proxy keeps its connections for longer than any head should last.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What a connection's service tells its timer: which bytes are a body's, and which begin the next head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Served {
    /// A head is read, and its request is served from now on.
    pub(crate) fn begun(&self) {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// The request is served.
    pub(crate) fn ended(&self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection whose heads are timed: reading fails where one does not end in time. The first begins with the connection.
pub(crate) struct TimedHeads<C> {
    connection: Pin<Box<C>>,
    limit: Duration,
    served: Served,
    /// Requests that had begun when bytes were last read.
    seen: u64,
    /// While a head is read.
    deadline: Option<Pin<Box<Sleep>>>,
    expired: bool,
}

impl<C> TimedHeads<C> {
    pub(crate) fn new(connection: C, limit: Duration, served: Served) -> Self {
        let deadline = Some(Box::pin(sleep_until(Instant::now() + limit)));
        Self { connection: Box::pin(connection), limit, served, seen: 0, deadline, expired: false }
    }

    /// Whether a head did not end in time.
    pub(crate) fn has_expired(&self) -> bool {
        self.expired
    }
}

impl<C: AsyncRead> AsyncRead for TimedHeads<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begun = self.served.0.begun.load(Ordering::Relaxed);
        if begun != self.seen {
            (self.seen, self.deadline) = (begun, None);
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.expired = true;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(self.connection.as_mut().poll_read(cx, buffer))?;
        let is_between = begun == self.served.0.ended.load(Ordering::Relaxed);
        if is_between && self.deadline.is_none() && buffer.filled().len() > before {
            self.deadline = Some(Box::pin(sleep_until(Instant::now() + self.limit)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite> AsyncWrite for TimedHeads<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.connection.as_mut().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connection.as_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.as_mut().poll_shutdown(cx)
    }
}
