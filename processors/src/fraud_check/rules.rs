//! What `fraud_check` measures against: one value a rule, with where it comes from. A changed value is a new version.

use rust_decimal::Decimal;

use super::conduct::{MOST_FRAUDS, MOST_UPLOADS};

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
    /// Microseconds after acceptance up to which a camera's time of the photo is not held against it: a day, as clocks are hours wrong
    /// where a driver has set them by hand.
    pub camera_ahead_us: i64,
    /// Microseconds by which the phone's own time of the photo and its camera's may differ: 2 hours, a clock that knows nothing of summer
    /// time and is some minutes off.
    pub camera_apart_us: i64,
    /// Microseconds by which a local time may differ from UTC, which a camera's is taken for that does not write its zone: 14 hours, the
    /// first zone east of the date line.
    pub camera_zone_us: i64,
    /// Share of the frame, 0-1, from which on the grid of a screen's pixels sends a photo to a person; measured by the reader's authors
    /// ([`reading::SCREEN_GRID`]).
    pub screen_grid: Decimal,
    /// Readable photos of a user in an hour of acceptance, this one counted: who was without a network for two weeks sends 14 at once.
    pub uploads_an_hour: usize,
    /// The same in 24 hours: the gateway's own limit is 20 in a day of UTC, and a deployment may have a higher one.
    pub uploads_a_day: usize,
    /// Rejections for fraud in 30 days from which a person looks at whatever else would be accepted: one digit misread and two photos
    /// refused for it happen to the honest.
    pub frauds: usize,
    /// The same of an account that is young.
    pub frauds_of_young: usize,
    /// Microseconds up to which an account is young: 7 days.
    pub young_us: i64,
    /// Accounts that may send from one device in 30 days: a family shares a phone.
    pub accounts_of_device: i32,
    /// Young accounts that may send from one address in 24 hours: colleagues begin together. Of older ones, a mobile network's gateway and
    /// a company's car park have thousands.
    pub young_accounts_of_address: i32,
    /// Units by which a claim may always differ: a driver leaves out the tenths.
    pub claim_slack: Decimal,
    /// Share of the reading by which a claim may differ: 0.5 %, two mixed-up last digits of a young car.
    pub claim_share: Decimal,
    /// Readings at and above it are no odometer's: seven digits, and the columns hold no more.
    pub mileage_end: Decimal,
}

/// No rule asks for more than is kept, nor contradicts another.
const _: () = {
    let rules = Rules::current();
    assert!(rules.uploads_an_hour <= rules.uploads_a_day && rules.uploads_a_day < MOST_UPLOADS);
    assert!(
        rules.frauds_of_young > 0 && rules.frauds_of_young <= rules.frauds && rules.frauds <= MOST_FRAUDS
    );
    assert!(
        rules.camera_apart_us <= rules.camera_ahead_us && rules.camera_ahead_us <= rules.captured_back_us
    );
};

impl Rules {
    /// The rules of this release.
    #[must_use]
    pub const fn current() -> Self {
        Self {
            version: "5",
            auto_accept: reading::AUTO_ACCEPT,
            speed_limit_kmh: Decimal::from_parts(200, 0, 0, false, 0),
            speed_slack_km: Decimal::from_parts(20, 0, 0, false, 0),
            km_a_day: Decimal::from_parts(1_500, 0, 0, false, 0),
            captured_back_us: 14 * 24 * 60 * MINUTE_US,
            captured_ahead_us: 5 * MINUTE_US,
            camera_ahead_us: 24 * 60 * MINUTE_US,
            camera_apart_us: 2 * 60 * MINUTE_US,
            camera_zone_us: 14 * 60 * MINUTE_US,
            screen_grid: reading::SCREEN_GRID,
            uploads_an_hour: 16,
            uploads_a_day: 24,
            frauds: 3,
            frauds_of_young: 1,
            young_us: 7 * 24 * 60 * MINUTE_US,
            accounts_of_device: 3,
            young_accounts_of_address: 10,
            claim_slack: Decimal::ONE,
            claim_share: Decimal::from_parts(5, 0, 0, false, 3),
            mileage_end: Decimal::from_parts(10_000_000, 0, 0, false, 0),
        }
    }
}
