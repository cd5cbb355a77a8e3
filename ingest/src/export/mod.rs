//! `GET /v1/me/export`: everything that is kept about the person who asks, as a ZIP archive that is made while it is sent.

mod archive;
mod logs;
mod package;
mod stores;

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use schemas::ids::Micros;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use warp::http::header::{CONTENT_DISPOSITION, HeaderValue};
use warp::reply::Response;

use self::archive::{Archive, ArchiveError};
pub use self::logs::{Documents, PersonLogs};
use self::package::{Package, PackageError};
use crate::auth::admission::{Agent, Exporter};
use crate::http::operation::Operation;
use crate::http::pieces::Pieces;
use crate::http::places::Places;
use crate::http::problem::{ApiError, BUSY, INTERNAL, Problem};
use crate::http::reply::Reply;
use crate::http::request::Dependency;
use crate::me::Account;
use crate::me::audit::Change;
use crate::uploads::store::PhotoStore;

/// What the route itself refuses.
pub(crate) const REFUSALS: &[Problem] = &[BUSY];

/// What exports work with.
pub(crate) struct Exports {
    /// Archives in the making: each reads the tables and photos of one person as fast as their line takes them.
    pub(crate) places: Places,
    /// The log documents, where the gateway is given a way to them.
    pub(crate) logs: Option<Arc<dyn PersonLogs>>,
}

/// An archive on its way.
pub(crate) struct Download {
    name: String,
    pieces: Pieces<io::Error>,
}

/// The route.
pub(crate) async fn show(
    Dependency(account): Dependency<Arc<Account>>,
    Dependency(exports): Dependency<Arc<Exports>>,
    Dependency(photos): Dependency<PhotoStore>,
    Exporter(caller): Exporter,
    Agent(agent): Agent,
) -> Result<Download, ApiError> {
    let place = exports.places.take_now()?;
    let now = account.clock.now();
    let record = Change {
        module: "users",
        action: "user.export",
        target: caller.user.0,
        before: Value::Null,
        after: json!({}),
        agent: agent.as_deref(),
    };
    let mut tx = account.pool.begin().await?;
    record.record(&mut tx, &caller, now).await?;
    tx.commit().await?;
    let package = Package {
        pool: account.pool.clone(),
        photos,
        logs: exports.logs.clone(),
        user: caller.user,
        now: now.to_utc(),
    };
    Ok(Download { name: name(now), pieces: made(package, place) })
}

/// `milestream-export-2026-01-31.zip`.
fn name(now: Micros) -> String {
    format!("milestream-export-{}.zip", now.to_utc().format("%Y-%m-%d"))
}

/// Has the archive made, in this place.
fn made(package: Package, place: OwnedSemaphorePermit) -> Pieces<io::Error> {
    Pieces::made_by(|outlet| async move {
        let _place = place;
        match package.write(Archive::new(outlet.clone())).await {
            Ok(()) | Err(PackageError::Archive(ArchiveError::Gone)) => {}
            Err(error) => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::error!(error = %error, cause, "an export ended early");
                // The client has gone meanwhile, or sees that the response is not whole.
                let _ = outlet.send(Err(io::Error::other("the export ended early"))).await;
            }
        }
    })
}

impl Reply for Download {
    fn into_response(self) -> Result<Response, ApiError> {
        let place = format!("attachment; filename=\"{}\"", self.name);
        let place = HeaderValue::from_str(&place).map_err(|error| INTERNAL.caused_by(error))?;
        let mut response = self.pieces.into_response(HeaderValue::from_static("application/zip"));
        response.headers_mut().insert(CONTENT_DISPOSITION, place);
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        let content = json!({ "application/zip": { "schema": { "type": "string", "format": "binary" } } });
        operation.response(200, "The archive", content);
    }
}
