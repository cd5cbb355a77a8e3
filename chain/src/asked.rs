//! What is told of each request to a service outside, to whoever keeps account of them.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// A request that has ended, with or without a response.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Scheme, host and port of the service: no user, password, path or query.
    pub service: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// Path of the URL behind that of the service's address, without a query.
    pub path: &'a str,
    /// Bytes of the request's body.
    pub sent: usize,
    /// Status of the response; none where there was no response.
    pub status: Option<u16>,
    /// Bytes of the response's body that were read.
    pub received: usize,
    /// From the first byte sent to the last byte read.
    pub took: Duration,
    /// Why it failed; none where the response was what had been asked for.
    pub error: Option<&'a dyn Display>,
    /// Whether it was to change something there, as a transaction does; else it only read.
    pub changes: bool,
}

/// Is told of each request. It is called between the response and its use, so it must not wait for anything.
pub type Observer = Arc<dyn Fn(&Asked<'_>) + Send + Sync>;
