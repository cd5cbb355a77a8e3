//! Takes what was recorded of the drivers with an upload in the window into the shadow schema, where it is found by event id. It is as much
//! as the topics hold of them.

use std::collections::HashSet;
use std::str::FromStr as _;

use runtime::refold::decoded;
use runtime::registry::SchemaSource;
use runtime::snapshot::Ranges;
use runtime::source::RawRecord;
use runtime::window::Recording;
use runtime::{Clock, Decided as _, FromRecord, Position};
use schemas::events::{Event as _, RewardGranted, UploadDecided, UploadHeader};
use schemas::ids::{EventId, UserId};
use schemas::topic::Topic;
use sqlx::PgPool;

use super::ReplayError;
use super::pace::Pace;
use super::spec::Cut;
use super::tables::{self, Kept, What};
use crate::fraud_check::input::FraudInput;
use crate::limit_check::LimitInput;

/// Records of one statement.
const BATCH: usize = 500;

/// Copies.
pub struct Copy<'a> {
    /// The shadow schema.
    pub shadow: &'a PgPool,
    /// What was recorded.
    pub recording: Recording<'a>,
    /// By which records are read.
    pub schemas: &'a dyn SchemaSource,
    /// Dates what is noted.
    pub clock: &'a dyn Clock,
    /// Told of each topic how many records of how many were read.
    pub progress: &'a (dyn Fn(Topic, u64, u64) + Sync),
}

/// The drivers of the window. A million of them are 16 MB.
type Drivers = HashSet<UserId>;

impl Copy<'_> {
    /// Takes the cut in `uploads.received` between two times, and says how many uploads stand there.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub async fn cut(&self, from_ms: i64, to_ms: i64) -> Result<(Cut, i64), ReplayError> {
        let cut = self.recording.between(Topic::UploadsReceived, from_ms, to_ms).await?;
        let accepted = cut.values().map(|(low, high)| high - low).sum();
        Ok((Cut(cut), accepted))
    }

    /// Copies everything; what a run before has copied stays.
    ///
    /// # Errors
    /// [`ReplayError`]: also where a stage has not come to the end of what is copied, as what it makes of that is not known yet.
    pub async fn run(&self, cut: &Cut, pace: &mut Pace) -> Result<(), ReplayError> {
        let drivers = self.drivers(cut, pace).await?;
        // What fraud_check has passed when it is looked at, and everything that followed from it.
        let readings = self.recording.passed("fraud_check", Topic::UploadsReadings).await?;
        self.recording.caught_up("reward_calculation", Topic::UploadsDecided).await?;
        self.recording.caught_up("limit_check", Topic::RewardsCalculated).await?;
        let given_up = self.recording.given_up("fraud_check").await?;
        let whole = |topic| self.recording.whole(topic);
        let (decided, calculated, granted) = (
            whole(Topic::UploadsDecided).await?,
            whole(Topic::RewardsCalculated).await?,
            whole(Topic::RewardsGranted).await?,
        );
        let of = Wanted { drivers: &drivers, cut, given_up: &given_up };
        self.topic::<FraudInput>((Topic::UploadsReadings, readings), of, pace).await?;
        self.topic::<UploadDecided>((Topic::UploadsDecided, decided), of, pace).await?;
        self.topic::<LimitInput>((Topic::RewardsCalculated, calculated), of, pace).await?;
        self.topic::<RewardGranted>((Topic::RewardsGranted, granted), of, pace).await?;
        let mut connection = self.shadow.acquire().await?;
        Ok(tables::copied(&mut connection, self.clock.now()).await?)
    }

    async fn drivers(&self, cut: &Cut, pace: &mut Pace) -> Result<Drivers, ReplayError> {
        let mut drivers = Drivers::new();
        let mut records = self.recording.records(Topic::UploadsReceived, cut.0.clone());
        while let Some(record) = records.recv().await {
            pace.take(1).await;
            drivers.extend(driver(&record?));
        }
        Ok(drivers)
    }

    async fn topic<E: Recorded>(
        &self,
        (topic, ranges): (Topic, Ranges),
        wanted: Wanted<'_>,
        pace: &mut Pace,
    ) -> Result<(), ReplayError> {
        let total = ranges.values().map(|(low, high)| u64::try_from(high - low).unwrap_or(0)).sum();
        let (mut read, mut kept) = (0, Vec::with_capacity(BATCH));
        let mut records = self.recording.records(topic, ranges);
        while let Some(record) = records.recv().await {
            let record = record?;
            read += 1;
            pace.take(1).await;
            let user_id = driver(&record).filter(|driver| wanted.drivers.contains(driver));
            if let Some(user_id) = user_id.filter(|_| !wanted.given_up.contains(&record.position))
                && let Some(event) = decoded::<E>(self.schemas, &record).await?
            {
                let (what, event_id) = event.payload.kept_as();
                let in_window = wanted.cut.holds(event.payload.header().root);
                kept.push(Kept { what, event_id, user_id, in_window, record });
            }
            if kept.len() == BATCH {
                tables::keep(&mut *self.shadow.acquire().await?, &kept).await?;
                kept.clear();
            }
            if read % 1_000 == 0 || read == total {
                (self.progress)(topic, read, total);
            }
        }
        Ok(tables::keep(&mut *self.shadow.acquire().await?, &kept).await?)
    }
}

/// Which records are copied.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    drivers: &'a Drivers,
    cut: &'a Cut,
    /// Records that the stage has never decided.
    given_up: &'a HashSet<Position>,
}

/// By a record's key.
fn driver(record: &RawRecord) -> Option<UserId> {
    let key = std::str::from_utf8(record.key.as_deref()?).ok()?;
    UserId::from_str(key).ok()
}

/// A record of a topic that is copied.
trait Recorded: FromRecord {
    fn kept_as(&self) -> (What, EventId);
    fn header(&self) -> &UploadHeader;
}

impl Recorded for FraudInput {
    fn kept_as(&self) -> (What, EventId) {
        (What::Reading, self.id())
    }

    fn header(&self) -> &UploadHeader {
        Self::header(self)
    }
}

impl Recorded for UploadDecided {
    fn kept_as(&self) -> (What, EventId) {
        (What::Decided, self.event_id())
    }

    fn header(&self) -> &UploadHeader {
        &self.header
    }
}

impl Recorded for LimitInput {
    fn kept_as(&self) -> (What, EventId) {
        let what = match self {
            Self::Calculated(event) if event.adjustment.is_some() => What::Adjusted,
            Self::Calculated(_) => What::Calculated,
            Self::Cancelled(_) => What::Cancelled,
        };
        (what, self.id())
    }

    fn header(&self) -> &UploadHeader {
        Self::header(self)
    }
}

impl Recorded for RewardGranted {
    fn kept_as(&self) -> (What, EventId) {
        let what = if self.adjustment.is_some() { What::AdjustedGrant } else { What::Granted };
        (what, self.event_id())
    }

    fn header(&self) -> &UploadHeader {
        &self.header
    }
}
