//! The closed set of reasons: one name for an outcome wherever it shows - metric label, dead-letter header,
//! log, column and problem document.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $advice:literal;)*) => {
        /// Why an upload was turned down, a record dropped, or a record dead-lettered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in order of declaration.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Reason::$variant => $label,)* }
            }

            /// One sentence that advises a driver (or an operator) what to do.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Reason::$variant => $advice,)* }
            }
        }
    };
}

reasons! {
    /// The bytes are not a JPEG, PNG, WebP or HEIC picture.
    UnsupportedFormat = "unsupported_format", "Send the photo as JPEG, PNG, WebP or HEIC.";
    /// The picture ends in the middle.
    TruncatedImage = "truncated_image", "The photo arrived incomplete: send it again.";
    /// Too dark to read.
    TooDark = "too_dark", "Too dark: turn on the dashboard light.";
    /// Washed out.
    OverExposed = "over_exposed", "Too bright: turn off the flash and avoid direct sun.";
    /// Out of focus.
    Blurred = "blurred", "Blurred: hold the phone still and tap the odometer to focus.";
    /// A reflection covers much of the picture.
    Glare = "glare", "A reflection covers the display: change the angle.";
    /// Too few pixels.
    LowResolution = "low_resolution", "The photo is too small: use the camera's full resolution.";
    /// No odometer reading was found.
    NoOdometer = "no_odometer", "No odometer was found: photograph the total mileage, close and straight on.";
    /// A reading was found, but not surely enough.
    LowConfidence = "low_confidence", "The reading is not certain: a person will look at it.";
    /// More than one plausible odometer value.
    SeveralReadings = "several_readings", "Several readings were found: photograph the total mileage alone.";
    /// Another driver sent the same photo first.
    DuplicatePhoto = "duplicate_photo", "This photo was already used: take a new one.";
    /// The reading is below the vehicle's last verified one.
    Rollback = "rollback", "The reading is below your last verified one.";
    /// The distance since the last reading cannot have been driven in the time.
    ImpossibleSpeed = "impossible_speed", "The distance since your last photo is not possible in that time.";
    /// The claimed mileage differs from what was read.
    ClaimMismatch = "claim_mismatch", "The mileage you typed differs from the photo.";
    /// The photo's metadata says that it was edited.
    EditedPhoto = "edited_photo", "Send the camera's original photo.";
    /// The photo is old.
    StalePhoto = "stale_photo", "Take a new photo: this one is too old, or its time is not the camera's.";
    /// A photo of a screen.
    PhotoOfScreen = "photo_of_screen", "This looks like a photo of a screen: photograph the dashboard itself.";
    /// Too many uploads in a short time.
    Velocity = "velocity", "Many photos in a short time: a person looks at this one before it counts.";
    /// More accounts than a family has send photos from the device.
    SharedDevice = "shared_device", "Several accounts send photos from this device: a person looks at this one before it counts.";
    /// Many accounts that are new send photos from the address.
    SharedAddress = "shared_address", "Many new accounts send photos from this network: a person looks at this one before it counts.";
    /// Earlier photos of the account were turned down for fraud.
    EarlierRejections = "earlier_rejections", "Earlier photos of this account were turned down: a person looks at this one before it counts.";
    /// The account is locked.
    AccountStanding = "account_standing", "Your account is locked: contact support.";
    /// A person turned it down.
    ReviewRejected = "review_rejected", "A person has looked at the photo and turned it down.";
    /// No person looked at it in time.
    ReviewTimeout = "review_timeout", "Nobody could look at the photo in time: send a new one.";
    /// A person could not read it for certain.
    AnotherPhoto = "another_photo", "A person could not read the mileage for certain: take a new photo, close and straight on.";
    /// Our fault.
    ProcessingFailed = "processing_failed", "We could not process the photo: please send it again.";
    /// An operator has ended it, because it could get no further.
    Abandoned = "abandoned", "We could not process the photo and have ended it: please take a new one.";
    /// An event with this id was decided before.
    DuplicateEvent = "duplicate_event", "Nothing to do: the event was handled before.";
    /// The record is not framed Avro (wrong magic byte, or too short).
    BadFraming = "bad_framing", "The producer must write Confluent framing: byte 0, schema id, datum.";
    /// The schema registry does not know the schema id.
    UnknownSchema = "unknown_schema", "Register the schema, then redrive the dead letter.";
    /// The datum does not decode with its schema.
    BadDatum = "bad_datum", "The producer wrote bytes that do not fit its schema.";
    /// The sink's database refuses the row.
    BadRow = "bad_row", "The event's values do not fit the table: see the dead letter's detail.";
    /// An operator has set the record aside.
    OperatorSkip = "operator_skip", "Redrive the dead letter once a release that knows the record's type is deployed.";
    /// A verified reading that moves nothing: the first of a vehicle, or less than ten metres.
    NoDistance = "no_distance", "Nothing to reward yet: the next photo counts from this reading.";
    /// The upload was not verified, so that there is nothing to reward.
    NotVerified = "not_verified", "Only a verified photo earns a reward.";
    /// A reward was cancelled before it was paid.
    Cancelled = "cancelled", "The reward is cancelled: your budget has back what it was charged.";
    /// A reward that waited for its driver's claim was not claimed in time.
    ClaimExpired = "claim_expired", "The reward was not claimed in time: claim rewards before their time is up, or have them paid by themselves.";
    /// A correction that raises a reading, or lowers it below the verified one before it.
    CorrectionRefused = "correction_refused", "Nothing is changed: a correction lowers a verified reading, the oldest wrong one first.";
    /// A budget is used up, in whole or in part.
    OverLimit = "over_limit", "Your reward budget is used up for now: it begins anew with the next period.";
}

impl Reason {
    /// Those of a rejection that say that the driver asked for distance that was not driven. Bad photos and full queues do not.
    pub const FRAUD: [Self; 6] = [
        Self::DuplicatePhoto,
        Self::Rollback,
        Self::ImpossibleSpeed,
        Self::ClaimMismatch,
        Self::EditedPhoto,
        Self::PhotoOfScreen,
    ];

    /// Whether we, not the sender of the photo, have to act on it.
    #[must_use]
    pub fn is_our_fault(self) -> bool {
        matches!(
            self,
            Self::ReviewTimeout
                | Self::ProcessingFailed
                | Self::Abandoned
                | Self::BadFraming
                | Self::UnknownSchema
                | Self::BadDatum
                | Self::BadRow
                | Self::OperatorSkip
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_the_name_that_the_wire_carries() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.label());
        }
    }
}
