//! A request's body under limits: a cap on its bytes, a longest silence, a deadline, and a way to throw the rest away.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, Sleep, sleep_until};

use super::problem::{ApiError, BODY_TIMEOUT, BODY_TOO_LARGE, INCOMPLETE_BODY, MALFORMED_FORM};
use crate::config::Timeouts;

/// Bytes of a body whose route says nothing of its size. 64 KiB: far more than any JSON document that clients send.
const SMALL: u64 = 64 * 1024;
/// Bytes that may arrive before the form's next field begins. hyper hands over at most its 64 KiB buffer at a time, so
/// a well-formed form never comes near; without it a field's header without an end would fill memory up to the body cap.
const LOOK_AHEAD: u64 = 1024 * 1024;

/// A limited body.
pub(crate) struct Body {
    stream: BoxStream<'static, Result<Bytes, warp::Error>>,
    left: u64,
    /// The refusal of a longer body.
    too_large: Box<dyn Fn() -> ApiError + Send>,
    idle: Duration,
    begun: Instant,
    silence: Pin<Box<Sleep>>,
    deadline: Pin<Box<Sleep>>,
    look_ahead: LookAhead,
    polled: bool,
    ended: bool,
    /// Nothing more will come, or nothing came for too long: not worth reading on.
    spent: bool,
}

/// How many bytes may still arrive before the next field of a form begins; shared with the form's reader.
#[derive(Clone, Debug)]
pub(crate) struct LookAhead(Arc<AtomicU64>);

impl LookAhead {
    /// The reader waits for the next field.
    pub(crate) fn field_awaited(&self) {
        self.0.store(LOOK_AHEAD, Ordering::Relaxed);
    }

    /// The reader is inside a field and takes its bytes as they come.
    pub(crate) fn field_begun(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) -> bool {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        left >= bytes
    }
}

impl Body {
    /// A small body, until [`Self::allow`] says otherwise.
    pub(crate) fn new<S, B>(stream: S, timeouts: &Timeouts) -> Self
    where
        S: Stream<Item = Result<B, warp::Error>> + Send + 'static,
        B: Buf,
    {
        let now = Instant::now();
        Self {
            stream: stream.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining()))).boxed(),
            left: SMALL,
            too_large: Box::new(|| BODY_TOO_LARGE.error()),
            idle: timeouts.body_idle,
            begun: now,
            silence: Box::pin(sleep_until(now + timeouts.body_idle)),
            deadline: Box::pin(sleep_until(now + timeouts.body_total)),
            look_ahead: LookAhead(Arc::new(AtomicU64::new(LOOK_AHEAD))),
            polled: false,
            ended: false,
            spent: false,
        }
    }

    /// Takes `bytes` at most; a longer body is refused with `too_large`.
    pub(crate) fn allow(&mut self, bytes: u64, too_large: impl Fn() -> ApiError + Send + 'static) {
        self.left = bytes;
        self.too_large = Box::new(too_large);
    }

    /// Ends this long after the request began.
    pub(crate) fn within(&mut self, limit: Duration) {
        self.deadline.as_mut().reset(self.begun + limit);
    }

    pub(crate) fn look_ahead(&self) -> LookAhead {
        self.look_ahead.clone()
    }

    /// The whole body in memory; it is no form.
    pub(crate) async fn whole(&mut self) -> Result<Vec<u8>, ApiError> {
        self.look_ahead.field_begun();
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes)
    }

    /// Reads and throws away what is left, at most for `limit`: a client that is still sending would otherwise meet a reset
    /// connection instead of the response. A client that waits for `100 Continue` (`expects`) and was not asked for its body is
    /// left alone, as is one whose body has ended or was too slow.
    pub(crate) async fn discard(&mut self, limit: Duration, expects: bool) {
        if self.spent || (expects && !self.polled) {
            return;
        }
        let rest = async { while let Some(Ok(_)) = self.stream.next().await {} };
        // Whether it ended or the time is up: the response goes out now.
        let _ = tokio::time::timeout(limit, rest).await;
    }

    fn timed_out(&mut self, cx: &mut Context<'_>) -> Option<ApiError> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Some(BODY_TIMEOUT.because("the body came too slowly: it took too long as a whole"));
        }
        self.silence
            .as_mut()
            .poll(cx)
            .is_ready()
            .then_some(BODY_TIMEOUT.because("the body came too slowly: nothing arrived for too long"))
    }

    fn admit(&mut self, chunk: Bytes) -> Result<Bytes, ApiError> {
        let bytes = chunk.len() as u64;
        self.silence.as_mut().reset(Instant::now() + self.idle);
        self.left = self.left.checked_sub(bytes).ok_or_else(|| (self.too_large)())?;
        if self.look_ahead.take(bytes) {
            Ok(chunk)
        } else {
            Err(MALFORMED_FORM
                .because("the body is not a well-formed multipart form: a field's header does not end"))
        }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.polled = true;
        if self.ended {
            return Poll::Ready(None);
        }
        let item = match self.stream.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(chunk))) => Some(self.admit(chunk)),
            Poll::Ready(Some(Err(_))) => {
                self.spent = true;
                Some(Err(INCOMPLETE_BODY.error()))
            }
            Poll::Ready(None) => {
                self.spent = true;
                None
            }
            Poll::Pending => match self.timed_out(cx) {
                Some(error) => {
                    self.spent = true;
                    Some(Err(error))
                }
                None => return Poll::Pending,
            },
        };
        // A steady trickle never pends long enough for the silence, so the deadline is looked at here too.
        let item = match item {
            Some(Ok(_)) if self.deadline.as_mut().poll(cx).is_ready() => {
                Some(Err(BODY_TIMEOUT.because("the body came too slowly: it took too long as a whole")))
            }
            item => item,
        };
        self.ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}
