//! Why the stack does not start.

use std::io;

use crate::client::FetchError;
use crate::part::Part;

/// Why the stack did not start.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A part could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A part ended or did not respond in time.
    #[error("{part} did not respond within {seconds} s; its log ends with:\n{log}")]
    NotReady {
        /// The part.
        part: Part,
        /// How long was waited.
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },
    /// Another process was quicker with the port that was just free.
    #[error("{part} found port {port} taken")]
    PortTaken {
        /// The part.
        part: Part,
        /// The port.
        port: u16,
    },
    /// The first needs the second, which did not start.
    #[error("{0} needs {1}, which did not start")]
    Needs(Part, Part),
    /// A thread of the start panicked.
    #[error("the start of {0} panicked")]
    Panicked(Part),
}

pub(crate) fn os(what: &'static str) -> impl FnOnce(io::Error) -> StackError {
    move |source| StackError::Io { what, source }
}
