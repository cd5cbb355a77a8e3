//! What writes tables of the sink. A table is declared in the file that writes it, and written by a row of
//! [`WRITERS`](super::WRITERS): what a rebuild empties, what must be there at the start and what tests compare follow.

use futures::future::BoxFuture;
use runtime::Envelope;
use sqlx::PgConnection;

use super::event::UploadEvent;
use super::fit::BadValue;
use crate::database::Table;

/// Why a batch is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The server.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// A value does not fit.
    #[error(transparent)]
    Value(#[from] BadValue),
}

/// The events of one type in a batch.
pub(super) fn picked<'a, T>(
    batch: &'a [Envelope<UploadEvent>],
    pick: impl Fn(&'a UploadEvent) -> Option<&'a T>,
) -> Vec<&'a T> {
    batch.iter().filter_map(|event| pick(&event.payload)).collect()
}

/// Writes some tables.
pub(super) trait Writer: Sync {
    /// The tables, in the order in which it locks them.
    fn tables(&self) -> &'static [Table];

    /// A statement that takes back what it wrote into tables that are not emptied.
    fn reset(&self) -> Option<&'static str> {
        None
    }

    /// Writes what a batch says of the tables. Again changes nothing, and batches come in any order.
    fn write<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        batch: &'a [Envelope<UploadEvent>],
    ) -> BoxFuture<'a, Result<(), WriteError>>;
}
