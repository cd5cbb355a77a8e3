//! What `fraud_check` measures against: one value a rule, with where it comes from. A changed value is a new version.

use rust_decimal::Decimal;

/// Microseconds of a minute.
const MINUTE_US: i64 = 60 * 1_000_000;

/// A version of the rules. Stored beside every decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Names this version; stored in `decisions.rules_version`.
    pub version: &'static str,
    /// Confidence, 0-0.99, at and above which a reading needs no person. Measured on held-out photos by the reader's
    /// authors: it moves with the models ([`reading::AUTO_ACCEPT`]).
    pub auto_accept: Decimal,
    /// Kilometres per hour that no driver keeps up between two photos. 130 km/h is the highest general motorway limit of
    /// most countries; 200 leaves room for unlimited roads, and for the clock of the phone.
    pub speed_limit_kmh: Decimal,
    /// Kilometres that are never held against the speed: an hour's driving that was photographed late, or an odometer
    /// that was read a few units off.
    pub speed_slack_km: Decimal,
    /// Kilometres a day, on the average of a day or more, from which a person looks: two drivers who take turns day and night at 60 km/h
    /// come to 1,440.
    pub km_a_day: Decimal,
    /// Microseconds before acceptance up to which the phone's own time of the photo is believed: 14 days, a holiday
    /// without a network.
    pub captured_back_us: i64,
    /// Microseconds after acceptance up to which it is believed: 5 minutes, the drift of a phone that has not
    /// asked a time server for weeks.
    pub captured_ahead_us: i64,
    /// Units by which a claim may always differ: a driver leaves out the tenths.
    pub claim_slack: Decimal,
    /// Share of the reading by which a claim may differ: 0.5 %, two mixed-up last digits of a young car.
    pub claim_share: Decimal,
    /// Readings at and above it are no odometer's: seven digits, and the columns hold no more.
    pub mileage_end: Decimal,
}

impl Rules {
    /// The rules of this release.
    #[must_use]
    pub const fn current() -> Self {
        Self {
            version: "3",
            auto_accept: reading::AUTO_ACCEPT,
            speed_limit_kmh: Decimal::from_parts(200, 0, 0, false, 0),
            speed_slack_km: Decimal::from_parts(20, 0, 0, false, 0),
            km_a_day: Decimal::from_parts(1_500, 0, 0, false, 0),
            captured_back_us: 14 * 24 * 60 * MINUTE_US,
            captured_ahead_us: 5 * MINUTE_US,
            claim_slack: Decimal::ONE,
            claim_share: Decimal::from_parts(5, 0, 0, false, 3),
            mileage_end: Decimal::from_parts(10_000_000, 0, 0, false, 0),
        }
    }
}
