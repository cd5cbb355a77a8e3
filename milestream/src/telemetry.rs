//! The log: one line an event on standard error, as text or JSON.

use anyhow::{Context as _, bail};
use tracing_subscriber::EnvFilter;

use crate::config::Log;

/// Starts the log of this process.
///
/// # Errors
/// For a filter or format that is not one.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).with_context(|| format!("log.filter {:?}", log.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format.as_str() {
        "json" => builder.json().init(),
        "text" => builder.with_ansi(false).init(),
        other => bail!("log.format {other:?} is neither text nor json"),
    }
    Ok(())
}
