//! An upload that gets no further is ended by an operator.

use serde::{Deserialize, Serialize};

use crate::header::{Root, Stamp, UploadHeader};
use crate::ids::{EventId, Micros, UploadId, natural};
use crate::uploads::Review;

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
        let what = if review.is_some() { "abandoned_review" } else { "abandoned" };
        let event_id = EventId(natural(&format!("{what}/{}", header.upload_id)));
        let header = UploadHeader { event_id, ..header.next(what, stage_version, now, root) };
        Self { header, stamp, detail, review }
    }

    /// Whether this event id is that of the order to end this upload.
    #[must_use]
    pub fn is_id_of(event_id: EventId, upload: UploadId) -> bool {
        ["abandoned", "abandoned_review"]
            .iter()
            .any(|what| event_id.0 == natural(&format!("{what}/{upload}")))
    }
}
