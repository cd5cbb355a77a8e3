//! A response that is made while it is sent: a few pieces of it are in memory, however slowly its client takes them.

use std::error::Error;

use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::reply::{Reply as _, Response};

/// Pieces that wait for a slow client.
const WAITING: usize = 2;

/// Where the task that makes them puts pieces; an error cuts the response off, so that a part is not taken for the whole. It fails where
/// the client has gone.
pub(crate) type Outlet<E> = mpsc::Sender<Result<Bytes, E>>;

/// The pieces that a task makes. The task ends with them.
pub(crate) struct Pieces<E> {
    made: mpsc::Receiver<Result<Bytes, E>>,
    _making: JoinSet<()>,
}

impl<E: Error + Send + Sync + 'static> Pieces<E> {
    /// Has them made by a task of their own.
    pub(crate) fn made_by<M>(make: impl FnOnce(Outlet<E>) -> M) -> Self
    where
        M: Future<Output = ()> + Send + 'static,
    {
        let (outlet, made) = mpsc::channel(WAITING);
        let mut making = JoinSet::new();
        making.spawn(make(outlet));
        Self { made, _making: making }
    }

    /// The response, of this type and for whoever asks alone.
    pub(crate) fn into_response(self, kind: HeaderValue) -> Response {
        let pieces = stream::unfold(self, |mut pieces| async move {
            let piece = pieces.made.recv().await?;
            Some((piece, pieces))
        });
        let mut response = warp::reply::stream(pieces).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}
