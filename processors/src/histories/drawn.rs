//! Histories out of drawn numbers: each number is one record, so that a failing history is made smaller by leaving records out.

use std::sync::LazyLock;

use rust_decimal::Decimal;
use schemas::events::{Candidate, OdometerRead, Review, RewardCancelled, Root, Unit, UploadAbandoned};
use schemas::ids::{Micros, RewardId, UploadId, UserId, VehicleId};
use schemas::reason::Reason;
use uuid::Uuid;

use crate::fraud_check::input::unread;

const HOUR_US: i64 = 3_600_000_000;
/// Drivers, each with two vehicles.
const DRIVERS: u64 = 3;
/// Kilometres at the start.
const START_KM: u64 = 50_000;

/// A record of a history.
#[derive(Clone, Debug)]
pub(super) enum Record {
    /// What was read, or what a person has decided.
    Reading(Box<OdometerRead>),
    /// An operator cancels the reward of an upload.
    Cancellation(Box<RewardCancelled>),
}

impl Record {
    /// Whose it is.
    pub fn user(&self) -> UserId {
        match self {
            Self::Reading(event) => event.header.user_id,
            Self::Cancellation(event) => event.header.user_id,
        }
    }
}

/// The bits of a number, taken from its low end.
struct Bits(u64);

impl Bits {
    fn take(&mut self, bits: u32) -> u64 {
        let taken = self.0 & ((1 << bits) - 1);
        self.0 >>= bits;
        taken
    }

    fn one_in(&mut self, bits: u32) -> bool {
        self.take(bits) == 0
    }

    fn signed(&mut self, bits: u32) -> i64 {
        self.take(bits).cast_signed()
    }
}

/// A reading of the examples, whose values are all replaced below.
static EXAMPLE: LazyLock<OdometerRead> = LazyLock::new(|| {
    let example = include_str!("../../../schemas/examples/uploads.readings/normal-km.json");
    let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
    let mut event: OdometerRead = serde_json::from_value(example["event"].take()).unwrap();
    event.stamp.claimed_mileage = None;
    event.stamp.claimed_unit = None;
    // What no decision looks at is left out: it is copied a hundred million times.
    event.stamp.original_filename = None;
    let reading = event.reading.as_mut().unwrap();
    (reading.attempts, reading.detected_text, reading.bounding_boxes) = (Vec::new(), None, String::new());
    event
});

/// The records that these numbers stand for.
pub(super) fn history(draws: &[u64]) -> Vec<Record> {
    let mut drawing = Drawing::default();
    for draw in draws {
        drawing.record(Bits(*draw));
    }
    drawing.records
}

#[derive(Default)]
struct Drawing {
    records: Vec<Record>,
    /// Kilometres of each vehicle, as they really are.
    km: [u64; 6],
    /// Hours since the start.
    hours: i64,
}

impl Drawing {
    fn record(&mut self, mut bits: Bits) {
        let kind = bits.take(4);
        let earlier = usize::try_from(bits.take(5)).unwrap();
        match self.records.get(earlier.checked_rem(self.records.len()).unwrap_or_default()).cloned() {
            Some(Record::Reading(read)) if kind < 6 => self.about(kind, *read, bits),
            Some(repeated) if kind == 0 => self.records.push(repeated),
            _ if kind == 15 => self.abandoned(bits),
            _ => self.upload(bits),
        }
    }

    /// An upload that an operator ends before its reading comes all the same.
    fn abandoned(&mut self, bits: Bits) {
        self.upload(bits);
        let Some(Record::Reading(late)) = self.records.last().cloned() else { return };
        let OdometerRead { header, stamp, .. } = *late.clone();
        let said = ("it is lost".to_owned(), None);
        let by = ("1", Micros(0), Root { partition: 0, offset: 0 });
        let end = unread(UploadAbandoned::of((header, stamp), said, by));
        self.records.pop();
        self.records.extend([Record::Reading(Box::new(end)), Record::Reading(late)]);
    }

    /// A record about an earlier upload.
    fn about(&mut self, kind: u64, read: OdometerRead, mut bits: Bits) {
        let record = match kind {
            // Delivered again.
            0 => Record::Reading(Box::new(read)),
            1 => Record::Cancellation(Box::new(RewardCancelled {
                reward_id: RewardId::of(read.header.upload_id),
                granted: Decimal::ONE,
                reason: "an operator says so".to_owned(),
                header: read.header,
            })),
            // A person has seen what the reader did, something near it, or nothing.
            _ => {
                let seen = read.reading.as_ref().and_then(|reading| reading.best.clone());
                let off = Decimal::from(bits.signed(8) - 128);
                let mileage = seen.map(|seen| if bits.one_in(1) { seen.value } else { seen.value + off });
                let mileage = mileage.filter(|mileage| !bits.one_in(3) && !mileage.is_sign_negative());
                let unit = if bits.one_in(4) { Some(Unit::Miles) } else { None };
                let review = Review {
                    reviewer_id: UserId(Uuid::from_u128(9)),
                    decided_at: Micros(read.header.accepted_at.0 + HOUR_US),
                    mileage,
                    unit: mileage.and(unit),
                    reason: mileage.is_none().then_some(Reason::EditedPhoto),
                    notes: None,
                };
                Record::Reading(Box::new(OdometerRead { review: Some(review), ..read }))
            }
        };
        self.records.push(record);
    }

    fn upload(&mut self, mut bits: Bits) {
        let driver = bits.take(2) % DRIVERS;
        let vehicle = 2 * driver + bits.take(1);
        let slot = usize::try_from(vehicle).unwrap();
        let driven = bits.take(10);
        let shown = match bits.take(4) {
            // Set back, and misread by a digit.
            0 => (START_KM + self.km[slot]).saturating_sub(driven),
            1 => 10 * (START_KM + self.km[slot]),
            _ => {
                self.km[slot] += driven;
                START_KM + self.km[slot]
            }
        };
        self.hours += bits.signed(5);
        // Now and then one comes after others that were accepted later.
        let late = if bits.one_in(3) { bits.signed(6) } else { 0 };
        let mut event = EXAMPLE.clone();
        let header = &mut event.header;
        header.upload_id = UploadId(Uuid::from_u128(1_000 + self.records.len() as u128));
        header.user_id = UserId(Uuid::from_u128(1 + u128::from(driver)));
        header.vehicle_id = VehicleId(Uuid::from_u128(100 + u128::from(vehicle)));
        header.accepted_at.0 += (self.hours - late) * HOUR_US;
        event.stamp.captured_at =
            bits.one_in(2).then(|| Micros(header.accepted_at.0 - bits.signed(5) * HOUR_US));
        let unit = match bits.take(4) {
            0 => Some(Unit::Miles),
            1..8 => Some(Unit::Km),
            _ => None,
        };
        let (tenths, confidence) = (bits.signed(4) % 10, if bits.one_in(3) { 60 } else { 97 });
        let value = Decimal::new(10 * shown.cast_signed() + tenths, 1);
        let value = if tenths < 5 { value.trunc() } else { value };
        let reading = event.reading.as_mut().unwrap();
        reading.candidates = vec![Candidate { value, unit, confidence: Decimal::new(confidence, 2) }];
        reading.best = reading.candidates.first().cloned();
        if bits.one_in(3) {
            event.stamp.claimed_mileage = Some(value + Decimal::from(bits.signed(2) * 300));
            event.stamp.claimed_unit = unit;
        }
        self.records.push(Record::Reading(Box::new(event)));
    }
}
