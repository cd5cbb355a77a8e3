//! Sending records: without waiting, with acknowledgements that go straight to the ledger, or awaited one by one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::ledger::Ledger;
use crate::publish::{Delivered, PublishError};

/// Wait before a full local queue is tried again. librdkafka empties it in milliseconds while the broker responds.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(5);

/// A record to send, borrowed: librdkafka copies it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Key; none chooses a random partition.
    pub key: Option<&'a [u8]>,
    /// Value; none is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Who gets the acknowledgement.
#[derive(Debug)]
pub enum Ack {
    /// A record of the ledger has one acknowledgement less to wait for.
    Ledger(Arc<Ledger>, i64),
    /// Somebody waits.
    Waiter(oneshot::Sender<Result<Delivered, PublishError>>),
}

impl Ack {
    /// Hands the result over.
    pub fn settle(self, result: Result<Delivered, PublishError>) {
        match (self, result) {
            (Ack::Ledger(ledger, offset), Ok(_)) => ledger.acknowledge(offset),
            (Ack::Ledger(ledger, offset), Err(error)) => ledger.fail(offset, error),
            // The waiter may have given up: nothing depends on it then.
            (Ack::Waiter(sender), result) => drop(sender.send(result)),
        }
    }
}

/// The record was not taken; the acknowledgement comes back to be used again.
#[derive(Debug)]
pub enum NotTaken {
    /// The local queue is full, or the client is being built anew.
    Full(Ack),
    /// It will never be taken.
    Never(PublishError),
}

/// Takes records without waiting for their acknowledgement.
pub trait Outbound: Send + Sync + 'static {
    /// Takes a record.
    ///
    /// # Errors
    /// [`NotTaken`].
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken>;
}

/// Sends, waiting while the local queue is full.
///
/// # Errors
/// [`PublishError`] when the record will never be taken.
pub async fn send(outbound: &dyn Outbound, message: &Message<'_>, ack: Ack) -> Result<(), PublishError> {
    let mut ack = ack;
    loop {
        match outbound.send(message, ack) {
            Ok(()) => return Ok(()),
            Err(NotTaken::Never(error)) => return Err(error),
            Err(NotTaken::Full(back)) => ack = back,
        }
        tokio::time::sleep(FULL_QUEUE_WAIT).await;
    }
}

/// Sends and waits for the acknowledgement.
///
/// # Errors
/// [`PublishError`].
pub async fn send_and_wait(
    outbound: &dyn Outbound,
    message: &Message<'_>,
) -> Result<Delivered, PublishError> {
    let (sender, receiver) = oneshot::channel();
    send(outbound, message, Ack::Waiter(sender)).await?;
    receiver.await.unwrap_or_else(|_| Err(PublishError::Fatal("the producer is gone".into())))
}

/// How a producer is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryTimeout {
    /// Never gives a record up: for stages, whose offset waits.
    Unlimited,
    /// Gives up after this time: for the gateway, whose client waits.
    After(Duration),
}
