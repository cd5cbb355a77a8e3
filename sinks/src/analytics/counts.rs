//! What an event adds to which metric: functions of the event alone.
//!
//! Most of what an event reports is counted once, under a key of what it is about. A payment, a transaction's fee and an upload's first
//! verdict can change: those are [`Entity`]s, and what the highest revision says is counted.
//!
//! When it counts: accepted, read, calculated and granted at the acceptance, which is the instant that the budgets go by; paid and its
//! fee at the block's own time; decided when it was decided. What an adjustment adds or takes away counts at the acceptance too.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::{
    Adjustment, LimitCharge, OdometerRead, RewardCalculated, RewardGranted, Stamp, UploadDecided,
    UploadHeader, UploadReceived, Verdict,
};
use schemas::ids::{Micros, natural};
use schemas::reason::Reason;
use uuid::Uuid;

use super::co2::Factors;
use super::count::{BadCount, Count};
use super::entities::{self, Entity};
use super::event::AnalyticsEvent;
use super::exact::Exact;
use super::metrics::{Dimension, Metric};
use super::services::{ServiceCount, performance};

/// What is counted when an event says it for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// What the event says, e.g. `decided:UPLOAD`.
    pub key: String,
    /// What it adds.
    pub counts: Vec<Count>,
    /// What it adds to the numbers of reading services.
    pub services: Vec<ServiceCount>,
}

impl Once {
    /// The key as it is stored: UUIDv5, shorter than its text.
    #[must_use]
    pub fn id(&self) -> Uuid {
        natural(&self.key)
    }
}

/// What an event adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// When the event was made.
    pub occurred_at: DateTime<Utc>,
    /// What is counted once.
    pub once: Option<Once>,
    /// What can change.
    pub entities: Vec<Entity>,
}

/// What an event adds.
///
/// # Errors
/// [`BadCount`] for a value that is missing, negative, or from 10^11 on.
pub fn counts_of(event: &AnalyticsEvent) -> Result<EventCounts, BadCount> {
    match event {
        AnalyticsEvent::Received(event) => received(event),
        AnalyticsEvent::Read(event) => read(event),
        AnalyticsEvent::Corrected(event) => Ok(nothing(event.correction.corrected_at)),
        AnalyticsEvent::Abandoned(event) => Ok(nothing(event.header.occurred_at)),
        // What was counted of the decision before it is what was decided and paid for then.
        AnalyticsEvent::Decided(event) if event.correction.is_some() => Ok(nothing(event.header.occurred_at)),
        AnalyticsEvent::Decided(event) => decided(event),
        // How much it differs by is in the grant that answers it.
        AnalyticsEvent::Calculated(event) if event.adjustment.is_some() => {
            Ok(nothing(event.header.occurred_at))
        }
        AnalyticsEvent::Calculated(event) => calculated(event),
        AnalyticsEvent::Granted(event) => match &event.adjustment {
            Some(adjustment) => adjusted(event, adjustment),
            None => granted(event),
        },
        // Only drivers' own claims are published, so that their number would say nothing of what is claimed by itself.
        AnalyticsEvent::Claimed(event) => Ok(nothing(event.occurred_at)),
        AnalyticsEvent::Cancelled(event) => Ok(nothing(event.header.occurred_at)),
        AnalyticsEvent::Paid(event) => Ok(EventCounts {
            occurred_at: event.header.occurred_at.to_utc(),
            once: None,
            entities: entities::paid(event)?,
        }),
    }
}

/// Of an event that adds nothing.
fn nothing(occurred_at: Micros) -> EventCounts {
    EventCounts { occurred_at: occurred_at.to_utc(), ..EventCounts::default() }
}

/// Collects what one event adds at one instant.
struct Counts<'a> {
    header: &'a UploadHeader,
    stamp: &'a Stamp,
    at: DateTime<Utc>,
    counts: Vec<Count>,
}

impl<'a> Counts<'a> {
    fn at(at: Micros, header: &'a UploadHeader, stamp: &'a Stamp) -> Self {
        Self { header, stamp, at: at.to_utc(), counts: Vec::new() }
    }

    fn one(&mut self, metric: Metric, value: Exact, dimensions: impl IntoIterator<Item = Dimension>) {
        let count = |dimension| Count { metric, dimension, at: self.at, value, samples: 1 };
        self.counts.extend(dimensions.into_iter().map(count));
    }

    /// An amount that can be counted.
    fn exact(&self, metric: Metric, amount: Option<Decimal>) -> Result<Exact, BadCount> {
        let bad =
            |why| BadCount { entity: format!("upload {}", self.header.upload_id), what: metric.name(), why };
        let amount = amount.ok_or_else(|| bad("is missing or too large"))?;
        if amount < Decimal::ZERO {
            return Err(bad("is negative"));
        }
        Exact::of(amount).ok_or_else(|| bad("is not below 10^11"))
    }

    /// An amount; one of nothing is not counted.
    fn add(
        &mut self,
        metric: Metric,
        amount: Option<Decimal>,
        dimensions: impl IntoIterator<Item = Dimension>,
    ) -> Result<(), BadCount> {
        let value = self.exact(metric, amount)?;
        if value != Exact::ZERO {
            self.one(metric, value, dimensions);
        }
        Ok(())
    }

    /// An amount that takes the place of another; none counts as no sample.
    fn moves(
        &mut self,
        metric: Metric,
        (before, after): (Decimal, Decimal),
        dimensions: impl IntoIterator<Item = Dimension>,
    ) -> Result<(), BadCount> {
        let value = self.exact(metric, Some(after))?.plus(self.exact(metric, Some(before))?.negated());
        if value != Exact::ZERO {
            let samples = i64::from(!after.is_zero()) - i64::from(!before.is_zero());
            let count = |dimension| Count { metric, dimension, at: self.at, value, samples };
            self.counts.extend(dimensions.into_iter().map(count));
        }
        Ok(())
    }

    fn vehicle(&self) -> Dimension {
        Dimension::vehicle(self.stamp)
    }

    fn level(&self) -> Dimension {
        Dimension::level(self.stamp)
    }

    fn region(&self) -> Dimension {
        Dimension::region(self.stamp)
    }

    fn user(&self) -> Dimension {
        Dimension::User(self.header.user_id.0)
    }

    fn once(self, key: String) -> EventCounts {
        let once = Once { key, counts: self.counts, services: Vec::new() };
        EventCounts { occurred_at: self.header.occurred_at.to_utc(), once: Some(once), entities: Vec::new() }
    }
}

fn received(event: &UploadReceived) -> Result<EventCounts, BadCount> {
    let header = &event.header;
    let mut counts = Counts::at(header.accepted_at, header, &event.stamp);
    let cuts = [Dimension::Total, counts.vehicle(), counts.level(), counts.region()];
    counts.one(Metric::UploadsAccepted, Exact::ONE, cuts);
    Ok(counts.once(format!("accepted:{}", header.upload_id)))
}

/// One that names no service, since none was tried for it, is not even remembered.
fn read(event: &OdometerRead) -> Result<EventCounts, BadCount> {
    let services = performance(event)?;
    let once = Once { key: format!("read:{}", event.header.event_id), counts: Vec::new(), services };
    Ok(EventCounts {
        occurred_at: event.header.occurred_at.to_utc(),
        once: Some(once).filter(|once| !once.services.is_empty()),
        entities: Vec::new(),
    })
}

/// A verdict that waits for a person decides nothing: it says only that a person was asked.
fn decided(event: &UploadDecided) -> Result<EventCounts, BadCount> {
    let entities = vec![entities::verdict(event)];
    let (header, verdict) = (&event.header, event.verdict);
    if verdict == Verdict::Review {
        return Ok(EventCounts { occurred_at: header.occurred_at.to_utc(), once: None, entities });
    }
    let mut counts = Counts::at(header.occurred_at, header, &event.stamp);
    let outcome = Dimension::Cut("outcome", verdict.label().to_owned());
    let reason = Dimension::Cut("reason", event.reason.map_or("none", Reason::label).to_owned());
    counts.one(Metric::UploadsDecided, Exact::ONE, [Dimension::Total, outcome, reason, counts.vehicle()]);
    if verdict == Verdict::Verified {
        counts.one(Metric::UploadsVerified, Exact::ONE, [counts.user()]);
        driven(&mut counts, event.distance_km)?;
    }
    Ok(EventCounts { entities, ..counts.once(format!("decided:{}", header.upload_id)) })
}

/// Kilograms are kilometres times grams / 1,000.
fn driven(counts: &mut Counts<'_>, km: Option<Decimal>) -> Result<(), BadCount> {
    let (total, vehicle, level, region, user) =
        (Dimension::Total, counts.vehicle(), counts.level(), counts.region(), counts.user());
    let (emitted, avoided) = Factors::in_force(counts.header.accepted_at).of(&counts.stamp.vehicle_kind);
    let kilograms = |grams: Decimal| km?.checked_mul(grams)?.checked_div(Decimal::ONE_THOUSAND);
    let dimensions = [total.clone(), vehicle.clone(), level, region.clone(), user.clone()];
    counts.add(Metric::Distance, km, dimensions)?;
    counts.add(Metric::Co2Emitted, kilograms(emitted), [total.clone(), vehicle.clone()])?;
    counts.add(Metric::Co2Avoided, kilograms(avoided), [total, vehicle, region, user])
}

fn calculated(event: &RewardCalculated) -> Result<EventCounts, BadCount> {
    let header = &event.header;
    let mut counts = Counts::at(header.accepted_at, header, &event.stamp);
    let cuts = [Dimension::Total, counts.vehicle()];
    counts.add(Metric::RewardsCalculated, event.base.checked_add(event.bonus), cuts)?;
    Ok(counts.once(format!("calculated:{}", event.reward_id)))
}

fn granted(event: &RewardGranted) -> Result<EventCounts, BadCount> {
    let header = &event.header;
    let mut counts = Counts::at(header.accepted_at, header, &event.stamp);
    let dimensions = [Dimension::Total, counts.vehicle(), counts.level(), counts.region(), counts.user()];
    counts.add(Metric::RewardsGranted, Some(event.granted), dimensions)?;
    let cut = event.calculated.checked_sub(event.granted);
    counts.add(Metric::RewardsCut, cut, [Dimension::Total, cut_by(event)])?;
    Ok(counts.once(format!("granted:{}", event.reward_id)))
}

/// The budget with the least room is the one that cut; every budget was charged the same, so that the order of their rooms is
/// that before the charge. Of equals it is the shortest, as in the grant.
fn cut_by(event: &RewardGranted) -> Dimension {
    let room = |charge: &&LimitCharge| charge.limit_amount.saturating_sub(charge.current_amount);
    let tightest = event.charges.iter().min_by_key(room);
    Dimension::Cut("limit_type", tightest.map_or("other", |charge| charge.limit_type.label()).to_owned())
}

/// What an adjustment moves: by how much calculation, grant and cut differ from what was counted before.
fn adjusted(event: &RewardGranted, adjustment: &Adjustment) -> Result<EventCounts, BadCount> {
    let header = &event.header;
    let mut counts = Counts::at(header.accepted_at, header, &event.stamp);
    let (calculated, granted) = (adjustment.calculated_before, adjustment.granted_before);
    let cuts = [Dimension::Total, counts.vehicle()];
    counts.moves(Metric::RewardsCalculated, (calculated, event.calculated), cuts)?;
    let dimensions = [Dimension::Total, counts.vehicle(), counts.level(), counts.region(), counts.user()];
    counts.moves(Metric::RewardsGranted, (granted, event.granted), dimensions)?;
    let cut = (calculated.saturating_sub(granted), event.calculated.saturating_sub(event.granted));
    counts.moves(Metric::RewardsCut, cut, [Dimension::Total, cut_by(event)])?;
    Ok(counts.once(format!("adjusted:{}:{}", event.reward_id, adjustment.number)))
}
