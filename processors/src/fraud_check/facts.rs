//! What the checks of an upload compare: its event, its vehicle and the rules, everything converted once.

use rust_decimal::Decimal;
use schemas::events::{Candidate, OdometerRead, Unit};
use schemas::ids::{Micros, UploadId, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::conduct::Conduct;
use super::neighbours::{Late, Verified};
use super::rules::Rules;

/// Decimals of a kilometre that are kept: millimetres, the scale of `vehicle_readings`. Whole kilometres and whole
/// miles are exact; a tenth of a mile is rounded by less than half a millimetre, and differences still add up.
pub(super) const KM_SCALE: u32 = 6;

/// The last verified reading of a vehicle. It stays with the vehicle when that changes hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VehicleState {
    /// Last verified reading, kilometres, to the millimetre.
    pub last_km: Decimal,
    /// Highest reading ever verified, kilometres: nothing is paid twice below it.
    pub highest_km: Decimal,
    /// The unit that its readings were counted in.
    pub unit: Unit,
    /// The unit that its photos have shown; none until one has: then they are counted in kilometres.
    pub unit_shown: Option<Unit>,
    /// When the odometer showed it: the phone's time where it was believable, else the time of acceptance.
    pub last_at: Micros,
    /// The upload that it came from.
    pub last_upload_id: UploadId,
    /// Its newest verified readings in the order of acceptance, at most [`REMEMBERED`](super::neighbours::REMEMBERED). No part of the
    /// evidence: the decisions that verified them say the same.
    #[serde(skip)]
    pub recent: Vec<Verified>,
    /// Whose upload the newest verified one was. No part of the evidence, which its next owner may see: the event has it.
    #[serde(skip, default = "nobody")]
    pub owner: UserId,
}

fn nobody() -> UserId {
    UserId(Uuid::nil())
}

/// The unit of a photo of a vehicle: the one that the photo shows, else the one that the vehicle's photos have shown, else kilometres.
/// What a driver says is no evidence of it: a unit multiplies every distance.
#[must_use]
pub fn unit_of(shown: Option<Unit>, vehicle: Option<&VehicleState>) -> Unit {
    shown.or_else(|| vehicle.and_then(|vehicle| vehicle.unit_shown)).unwrap_or(Unit::Km)
}

/// What is known before an upload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// The vehicle: null until its first verified reading.
    pub vehicle: Option<&'a VehicleState>,
    /// The driver's conduct: null until their first decision.
    pub conduct: Option<&'a Conduct>,
}

/// Of a driver of whom nothing is known.
impl<'a> From<Option<&'a VehicleState>> for Before<'a> {
    fn from(vehicle: Option<&'a VehicleState>) -> Self {
        Self { vehicle, conduct: None }
    }
}

/// What the checks compare: everything converted once.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub event: &'a OdometerRead,
    pub vehicle: Option<&'a VehicleState>,
    pub conduct: Option<&'a Conduct>,
    pub rules: &'a Rules,
    pub unit: Unit,
    /// The unit that the photo shows, as the reader or a person saw it.
    pub shown: Option<Unit>,
    pub claimed: Option<Decimal>,
    pub ai: Option<&'a Candidate>,
    /// The candidate that the prior chooses, or what a person saw.
    pub chosen: Option<Candidate>,
    /// Confidence of the candidate that the prior chooses.
    pub confidence: Option<Decimal>,
    /// The verified reading before this one in the order of acceptance, in `unit`.
    pub previous: Option<Decimal>,
    /// Between which verified readings it belongs; none where it is the newest.
    pub late: Option<Late>,
    /// The chosen value in kilometres, to the millimetre.
    pub final_km: Option<Decimal>,
    /// When the odometer showed it: the phone's time where it is believable, else the time of acceptance.
    pub read_at: Micros,
}

impl<'a> Facts<'a> {
    pub fn of(event: &'a OdometerRead, before: Before<'a>, rules: &'a Rules) -> Self {
        let Before { vehicle, conduct } = before;
        let (header, stamp) = (&event.header, &event.stamp);
        let believable = |value: Decimal| value >= Decimal::ZERO && value < rules.mileage_end;
        let reading = event.reading.as_ref();
        let ai = reading.and_then(|reading| reading.best.as_ref()).filter(|best| believable(best.value));
        let person = event.review.as_ref().and_then(|review| Some((review.mileage?, review.unit)));
        let shown = person.map_or(ai.and_then(|best| best.unit), |(_, unit)| unit);
        let unit = unit_of(shown, vehicle);
        let late = vehicle.and_then(|vehicle| Late::of(&vehicle.recent, header.accepted_at));
        let previous_km = match &late {
            Some(late) => late.older_km,
            None => vehicle.map(|vehicle| vehicle.last_km),
        };
        let previous = previous_km.map(|km| (km / unit.in_km()).round_dp(2));
        // Values seen beside another unit are another number: they are not compared with this vehicle's.
        let comparable: Vec<Candidate> = reading
            .map(|reading| reading.candidates.as_slice())
            .unwrap_or_default()
            .iter()
            .filter(|seen| believable(seen.value) && seen.unit.is_none_or(|own| own == unit))
            .cloned()
            .collect();
        let read = reading::choose(&comparable, previous);
        let confidence = read.map(|read| read.confidence);
        let chosen = match person {
            None => read.cloned(),
            Some((value, unit)) => Some(Candidate { value, unit, confidence: Decimal::ONE })
                .filter(|seen| believable(seen.value)),
        };
        let claimed = stamp.claimed_mileage.filter(|claim| believable(*claim)).map(|claim| {
            let from = stamp.claimed_unit.unwrap_or(unit);
            if from == unit { claim } else { (claim * from.in_km() / unit.in_km()).round_dp(2) }
        });
        let age_us = |captured: Micros| header.accepted_at.0.saturating_sub(captured.0);
        let read_at = stamp
            .captured_at
            .filter(|captured| {
                (-rules.captured_ahead_us..=rules.captured_back_us).contains(&age_us(*captured))
            })
            .unwrap_or(header.accepted_at);
        let final_km = chosen.as_ref().map(|chosen| (chosen.value * unit.in_km()).round_dp(KM_SCALE));
        Self {
            event,
            vehicle,
            conduct,
            rules,
            unit,
            shown,
            claimed,
            ai,
            chosen,
            confidence,
            previous,
            late,
            final_km,
            read_at,
        }
    }

    /// Whether it begins what somebody drives the vehicle: the first verified reading of all, or the first of another owner than the last
    /// one's. Nobody is paid for what lies before it.
    pub fn is_baseline(&self) -> bool {
        self.vehicle.is_none_or(|vehicle| self.late.is_none() && vehicle.owner != self.event.header.user_id)
    }

    /// Whether what comes late lies between its neighbours.
    pub fn fits(&self, late: &Late) -> bool {
        let digit_km = self.chosen.as_ref().map(|chosen| last_digit(chosen.value) * self.unit.in_km());
        self.final_km.zip(digit_km).is_some_and(|(km, digit_km)| late.holds(km, digit_km))
    }

    /// The vehicle after this reading, were it verified. A display without tenths may show a little less than the last
    /// reading did: the vehicle never moves back by that. One that comes late moves nothing: it takes its place among the others.
    pub fn next_state(&self) -> Option<VehicleState> {
        let (final_km, accepted_at) = (self.final_km?, self.event.header.accepted_at);
        let unit_shown = self.shown.or_else(|| self.vehicle.and_then(|vehicle| vehicle.unit_shown));
        let mut recent = self.vehicle.map(|vehicle| vehicle.recent.clone()).unwrap_or_default();
        if let (Some(late), Some(vehicle)) = (&self.late, self.vehicle) {
            // A person may believe what lies beside its neighbours: it moves nothing then.
            if self.fits(late) {
                late.insert(&mut recent, accepted_at, final_km);
            }
            return Some(VehicleState { unit_shown, recent, ..vehicle.clone() });
        }
        let last_km = self.vehicle.map_or(final_km, |before| before.last_km.max(final_km));
        Verified::newest(&mut recent, accepted_at, last_km, self.vehicle.is_none());
        Some(VehicleState {
            last_km,
            highest_km: self.vehicle.map_or(final_km, |before| before.highest_km.max(final_km)),
            unit: self.unit,
            unit_shown,
            last_at: self.vehicle.map_or(self.read_at, |before| before.last_at.max(self.read_at)),
            last_upload_id: self.event.header.upload_id,
            recent,
            owner: self.event.header.user_id,
        })
    }
}

/// What the last digit of a display stands for: the true mileage lies in [shown, shown + that).
pub(super) fn last_digit(shown: Decimal) -> Decimal {
    Decimal::try_new(1, shown.scale()).unwrap_or(Decimal::ONE)
}
