//! An upload that gets no further is ended by an operator.

use serde::{Deserialize, Serialize};

use crate::header::{Root, Stamp, UploadHeader};
use crate::ids::{EventId, Micros, UploadId, natural};
use crate::uploads::Review;

/// What got no further: the reading of an upload, or what a person had decided about it.
const OF_A_READING: &str = "abandoned";
const OF_A_REVIEW: &str = "abandoned_review";

/// An operator ends an upload. Comes on the topic of readings in the place of the reading that never came, and is decided there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAbandoned {
    /// Header.
    pub header: UploadHeader,
    /// What was true at acceptance.
    pub stamp: Stamp,
    /// A sentence for the driver, without personal data.
    pub detail: String,
    /// What a person had decided, where that decision is what got no further.
    #[serde(default)]
    pub review: Option<Review>,
}

impl UploadAbandoned {
    /// The end of the upload of an event. Its id follows from the upload's, so that two orders to end one upload are one record, whichever
    /// event each was given by.
    #[must_use]
    pub fn of(
        (header, stamp): (UploadHeader, Stamp),
        (detail, review): (String, Option<Review>),
        (stage_version, now, root): (&str, Micros, Root),
    ) -> Self {
        let what = if review.is_some() { OF_A_REVIEW } else { OF_A_READING };
        let event_id = order(what, header.upload_id);
        let header = UploadHeader { event_id, ..header.next(what, stage_version, now, root) };
        Self { header, stamp, detail, review }
    }

    /// Whether this event id is that of the order to end this upload.
    #[must_use]
    pub fn is_id_of(event_id: EventId, upload: UploadId) -> bool {
        [OF_A_READING, OF_A_REVIEW].iter().any(|what| event_id == order(what, upload))
    }
}

/// The event id of an order to end an upload.
fn order(what: &str, upload: UploadId) -> EventId {
    EventId(natural(&format!("{what}/{upload}")))
}
