//! The events of the bench's uploads: the examples of the schemas, with ids, times and mileages of their own.

use anyhow::{Context as _, Result};
use runtime::Envelope;
use runtime::source::RawRecord;
use runtime::stage::Position;
use runtime::testing::record;
use rust_decimal::Decimal;
use schemas::events::{
    Event, OdometerRead, RewardCalculated, RewardGranted, Stamp, UploadDecided, UploadGraded, UploadHeader,
    UploadReceived,
};
use schemas::ids::{EventId, Micros, RewardId, UploadId, UserId, VehicleId, derived, natural};
use serde::de::DeserializeOwned;
use sinks::analytics::AnalyticsEvent;
use sinks::postgres::UploadEvent;
use uuid::Uuid;

/// Uploads of each user, a day apart.
const UPLOADS_OF_A_USER: u64 = 5;
/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// 2026-03-02T00:00:00Z, a Monday.
const START: i64 = 1_772_409_600 * SECOND;
/// Above every id of the rows that are there already; as UUIDv7, later uploads have higher ids.
const FIRST_UPLOAD: u128 = 0x0191_f3a0_0000_7000_8000_0000_0000_0000;

/// Events of some uploads.
pub struct Events {
    received: UploadReceived,
    graded: UploadGraded,
    read: OdometerRead,
    decided: UploadDecided,
    calculated: RewardCalculated,
    granted: RewardGranted,
    /// The first upload's number: no two rounds share an upload or a user.
    first: u64,
    count: u64,
}

macro_rules! example {
    ($path:literal) => {
        example(include_str!(concat!("../../../schemas/examples/", $path)))
    };
}

fn example<E: DeserializeOwned>(text: &str) -> Result<E> {
    let mut example: serde_json::Value = serde_json::from_str(text)?;
    serde_json::from_value(example["event"].take()).context("an example event")
}

impl Events {
    /// `count` uploads from number `first`.
    ///
    /// # Errors
    /// When an example is no event.
    pub fn new(first: u64, count: u64) -> Result<Self> {
        Ok(Self {
            received: example!("uploads.received/normal-claim.json")?,
            graded: example!("uploads.graded/normal-readable.json")?,
            read: example!("uploads.readings/normal-km.json")?,
            decided: example!("uploads.decided/normal-verified.json")?,
            calculated: example!("rewards.calculated/normal-basic.json")?,
            granted: example!("rewards.granted/normal-whole.json")?,
            first,
            count,
        })
    }

    /// The number of the first upload.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many uploads there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Users of the uploads.
    #[must_use]
    pub fn users(&self) -> Vec<Uuid> {
        (0..self.user_count()).map(|user| self.user(user).0).collect()
    }

    fn user_count(&self) -> u64 {
        self.count.div_ceil(UPLOADS_OF_A_USER)
    }

    fn user(&self, user: u64) -> UserId {
        UserId(natural(&format!("books/{}/{user}", self.first)))
    }

    /// The day of an upload: every user's first upload comes before anyone's second.
    fn day(&self, n: u64) -> i64 {
        i64::try_from(n / self.user_count()).unwrap_or(0)
    }

    fn header(&self, n: u64, stage: &str, of: &UploadHeader) -> UploadHeader {
        let user = self.user(n % self.user_count());
        let upload = Uuid::from_u128(FIRST_UPLOAD + u128::from(self.first + n));
        let seconds = self.day(n) * 86_400 + i64::try_from(n % self.user_count()).unwrap_or(0);
        let at = Micros(START + seconds * SECOND);
        let hash = |salt: &str| natural(&format!("{salt}/{upload}")).simple().to_string();
        UploadHeader {
            event_id: derived(EventId(upload), stage, 0),
            upload_id: UploadId(upload),
            user_id: user,
            vehicle_id: VehicleId(natural(&format!("vehicle/{user}"))),
            occurred_at: Micros(at.0 + 2 * SECOND),
            accepted_at: at,
            image_hash: hash("a") + &hash("b"),
            ..of.clone()
        }
    }

    fn stamp(&self, n: u64, of: &Stamp) -> Stamp {
        let captured = Micros(START + self.day(n) * 86_400 * SECOND);
        Stamp { claimed_mileage: None, captured_at: Some(captured), ..of.clone() }
    }

    fn km(&self, n: u64) -> Decimal {
        Decimal::from(50_000 + 100 * self.day(n))
    }

    /// `uploads.received`.
    #[must_use]
    pub fn received(&self, n: u64) -> UploadReceived {
        let of = &self.received;
        UploadReceived { header: self.header(n, "ingest", &of.header), stamp: self.stamp(n, &of.stamp) }
    }

    /// `uploads.graded`.
    #[must_use]
    pub fn graded(&self, n: u64) -> UploadGraded {
        let of = &self.graded;
        let (header, stamp) = (self.header(n, "quality_check", &of.header), self.stamp(n, &of.stamp));
        UploadGraded { header, stamp, ..of.clone() }
    }

    /// `uploads.readings`.
    #[must_use]
    pub fn read(&self, n: u64) -> OdometerRead {
        let mut event = self.read.clone();
        event.header = self.header(n, "odometer_reading", &event.header);
        event.stamp = self.stamp(n, &event.stamp);
        if let Some(reading) = &mut event.reading {
            for candidate in &mut reading.candidates {
                candidate.value = self.km(n);
            }
            reading.best = reading.candidates.first().cloned();
        }
        event
    }

    /// `uploads.decided`: verified.
    #[must_use]
    pub fn decided(&self, n: u64) -> UploadDecided {
        let of = &self.decided;
        UploadDecided {
            header: self.header(n, "fraud_check", &of.header),
            stamp: self.stamp(n, &of.stamp),
            ai_mileage: Some(self.km(n)),
            final_mileage: Some(self.km(n)),
            ..of.clone()
        }
    }

    /// `rewards.calculated`.
    #[must_use]
    pub fn calculated(&self, n: u64) -> RewardCalculated {
        let of = &self.calculated;
        let header = self.header(n, "reward_calculation", &of.header);
        let reward_id = RewardId::of(header.upload_id);
        RewardCalculated { header, reward_id, stamp: self.stamp(n, &of.stamp), ..of.clone() }
    }

    /// `rewards.granted`.
    #[must_use]
    pub fn granted(&self, n: u64) -> RewardGranted {
        let of = &self.granted;
        let header = self.header(n, "limit_check", &of.header);
        let reward_id = RewardId::of(header.upload_id);
        RewardGranted { header, reward_id, stamp: self.stamp(n, &of.stamp), ..of.clone() }
    }

    /// Framed records of one type, from an offset.
    ///
    /// # Errors
    /// When an event does not fit its schema.
    pub fn records<E: Event>(&self, from: u64, event: impl Fn(u64) -> E) -> Result<Vec<RawRecord>> {
        let offset = |n: u64| Ok::<_, anyhow::Error>(i64::try_from(from + n)?);
        (0..self.count).map(|n| Ok(record(&event(n), offset(n)?)?)).collect()
    }

    /// What the Postgres sink reads of the uploads, topic by topic in the order of the flow.
    #[must_use]
    pub fn of_uploads(&self) -> Vec<Vec<Envelope<UploadEvent>>> {
        vec![
            self.envelopes(|n| UploadEvent::Received(self.received(n))),
            self.envelopes(|n| UploadEvent::Graded(self.graded(n))),
            self.envelopes(|n| UploadEvent::Read(Box::new(self.read(n)))),
            self.envelopes(|n| UploadEvent::Decided(self.decided(n))),
            self.envelopes(|n| UploadEvent::Calculated(self.calculated(n))),
            self.envelopes(|n| UploadEvent::Granted(self.granted(n))),
        ]
    }

    /// What the analytics sink reads of them.
    #[must_use]
    pub fn of_analytics(&self) -> Vec<Vec<Envelope<AnalyticsEvent>>> {
        vec![
            self.envelopes(|n| AnalyticsEvent::Received(Box::new(self.received(n)))),
            self.envelopes(|n| AnalyticsEvent::Read(Box::new(self.read(n)))),
            self.envelopes(|n| AnalyticsEvent::Decided(Box::new(self.decided(n)))),
            self.envelopes(|n| AnalyticsEvent::Calculated(Box::new(self.calculated(n)))),
            self.envelopes(|n| AnalyticsEvent::Granted(Box::new(self.granted(n)))),
        ]
    }

    fn envelopes<E>(&self, event: impl Fn(u64) -> E) -> Vec<Envelope<E>> {
        let position = |n: u64| Position {
            topic: "books".into(),
            partition: 0,
            offset: i64::try_from(n).unwrap_or(i64::MAX),
        };
        (0..self.count)
            .map(|n| Envelope {
                payload: event(n),
                position: position(n),
                timestamp_ms: START / 1_000,
                redrive: 0,
                traceparent: None,
            })
            .collect()
    }
}
