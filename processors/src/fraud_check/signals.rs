//! The checks of an upload, in the order in which they decide. Each is recorded whether or not it speaks against the
//! upload; the first one that does is the verdict.

mod origin;

use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;
use schemas::events::Verdict;
use schemas::ids::Micros;
use schemas::reason::Reason;
use serde_json::{Value, json};

use self::origin::{accounts_of_device, young_accounts_of_address};
use super::conduct::DAY_US;
use super::facts::{Facts, last_digit};

/// Microseconds of an hour.
const HOUR_US: Decimal = Decimal::from_parts(3_600_000_000, 0, 0, false, 0);

/// How much a check counts: what it can bring about alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Turns the upload down: 1.
    Rejects,
    /// Sends it to a person: 0.5.
    Doubts,
}

impl Weight {
    fn value(self) -> f64 {
        match self {
            Self::Rejects => 1.0,
            Self::Doubts => 0.5,
        }
    }
}

/// A verdict other than verified.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Against {
    pub verdict: Verdict,
    pub reason: Reason,
    pub detail: String,
}

/// One check's result.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signal {
    pub name: &'static str,
    value: Value,
    threshold: Value,
    weight: Weight,
    pub against: Option<Against>,
}

impl Signal {
    /// Name and JSON, as they stand in the evidence.
    pub fn entry(&self) -> (String, Value) {
        let json = json!({
            "value": self.value,
            "threshold": self.threshold,
            "weight": self.weight.value(),
            "against": self.against.is_some(),
        });
        (self.name.to_owned(), json)
    }

    fn new(name: &'static str, weight: Weight, value: impl Into<Value>, threshold: impl Into<Value>) -> Self {
        Self { name, value: value.into(), threshold: threshold.into(), weight, against: None }
    }

    fn when(
        mut self,
        speaks: bool,
        verdict: Verdict,
        reason: Reason,
        detail: impl FnOnce() -> String,
    ) -> Self {
        self.against = speaks.then(|| Against { verdict, reason, detail: detail() });
        self
    }
}

type Check = fn(&Facts<'_>) -> Option<Signal>;

/// Every check that applies, in order of precedence. A person has seen what the others doubt; that a number cannot have been driven to is
/// more likely a slip of theirs.
pub(super) fn all(facts: &Facts<'_>) -> Vec<Signal> {
    // Of what people have decided only what was given up since has a fault.
    let reviewed: [Check; 5] = [account, fault, person, something_read, speed];
    let checks: [Check; 25] = [
        account,
        fault,
        first_holder,
        same_pixels,
        something_read,
        unit_change,
        claimed_unit,
        neighbours,
        rollback,
        speed,
        velocity,
        capture_age,
        edited_by,
        screen_grid,
        camera_age,
        camera_difference,
        claim,
        look_alike,
        accounts_of_device,
        young_accounts_of_address,
        several,
        confidence,
        uploads_of_user,
        standing,
        auto_accept,
    ];
    let checks = if facts.event.review.is_some() { &reviewed[..] } else { &checks[..] };
    checks.iter().filter_map(|check| check(facts)).collect()
}

fn account(facts: &Facts<'_>) -> Option<Signal> {
    let active = facts.event.stamp.account_active;
    let signal = Signal::new("account_active", Weight::Rejects, active, true);
    Some(signal.when(!active, Verdict::Rejected, Reason::AccountStanding, || {
        "the account was locked when the photo was accepted".into()
    }))
}

fn person(facts: &Facts<'_>) -> Option<Signal> {
    let review = facts.event.review.as_ref()?;
    let value = review.mileage.map_or(Value::Null, |mileage| mileage.to_string().into());
    let signal = Signal::new("person", Weight::Rejects, value, Value::Null);
    let reason = review.reason.unwrap_or(Reason::ReviewRejected);
    let detail = match review.person() {
        Some(_) => "a person has looked at the photo and turned it down",
        None => "nobody has looked at the photo in time",
    };
    Some(signal.when(review.mileage.is_none(), Verdict::Rejected, reason, || detail.into()))
}

fn fault(facts: &Facts<'_>) -> Option<Signal> {
    let fault = facts.event.fault.as_ref()?;
    let is_ours = matches!(fault.reason, Reason::ProcessingFailed | Reason::Abandoned);
    let verdict = if is_ours { Verdict::Failed } else { Verdict::Rejected };
    let signal = Signal::new("fault", Weight::Rejects, fault.reason.label(), Value::Null);
    Some(signal.when(true, verdict, fault.reason, || fault.detail.clone()))
}

fn first_holder(facts: &Facts<'_>) -> Option<Signal> {
    let holder = facts.event.stamp.first_holder?;
    let other = holder.user_id != facts.event.header.user_id;
    let signal = Signal::new("photo_of_another_user", Weight::Rejects, other, false);
    Some(signal.when(other, Verdict::Rejected, Reason::DuplicatePhoto, || {
        "another account sent this photo first".into()
    }))
}

/// Other bytes of the same picture. Photos of different users are not read in the order of acceptance: where the other one was accepted
/// later, nobody can say by it whose photo it is.
fn same_pixels(facts: &Facts<'_>) -> Option<Signal> {
    let (holder, header) = (facts.event.pixel_holder.as_ref()?, &facts.event.header);
    let first = holder.accepted_at <= header.accepted_at;
    let (other_user, other_vehicle) =
        (holder.user_id != header.user_id, holder.vehicle_id != header.vehicle_id);
    let (rejects, detail) = match (other_user, first) {
        (true, true) => (true, "another account sent the same picture in another file first"),
        (true, false) => {
            (false, "another account sent the same picture in another file, which was read first")
        }
        (false, _) => (false, "the same picture was sent for another vehicle of the account"),
    };
    let (weight, verdict) =
        if rejects { (Weight::Rejects, Verdict::Rejected) } else { (Weight::Doubts, Verdict::Review) };
    let signal = Signal::new("same_pixels", weight, holder.upload_id.to_string(), Value::Null);
    let speaks = other_user || other_vehicle;
    Some(signal.when(speaks, verdict, Reason::DuplicatePhoto, || detail.to_owned()))
}

fn something_read(facts: &Facts<'_>) -> Option<Signal> {
    let read = facts.chosen.is_some();
    let signal = Signal::new("something_read", Weight::Rejects, read, true);
    Some(signal.when(!read, Verdict::Rejected, Reason::NoOdometer, || "no odometer reading was found".into()))
}

/// A photo in another unit than the one that the vehicle was counted in is 1.6 times off, or another vehicle.
fn unit_change(facts: &Facts<'_>) -> Option<Signal> {
    let (vehicle, own) = (facts.vehicle?, facts.unit);
    let counted = vehicle.unit;
    let signal = Signal::new("unit", Weight::Doubts, own.label(), counted.label());
    Some(signal.when(own != counted, Verdict::Review, Reason::LowConfidence, || {
        let (own, counted) = (own.label(), counted.label());
        match facts.ai.and_then(|best| best.unit) {
            Some(_) => format!("the photo shows {own}, the vehicle's last reading was in {counted}"),
            None => format!("the vehicle's last reading was in {counted}, which no photo of it has shown"),
        }
    }))
}

/// A driver may err about the unit, and so may the reader: a person looks, and nothing is counted by the claim.
fn claimed_unit(facts: &Facts<'_>) -> Option<Signal> {
    let claimed = facts.event.stamp.claimed_unit?;
    let signal = Signal::new("claimed_unit", Weight::Doubts, claimed.label(), facts.unit.label());
    Some(signal.when(claimed != facts.unit, Verdict::Review, Reason::ClaimMismatch, || {
        format!("typed in {}, the photo counts in {}", claimed.label(), facts.unit.label())
    }))
}

/// What comes late is no fraud: it lies between the verified readings around its place, and then earns nothing that they were paid for,
/// or a person looks at it.
fn neighbours(facts: &Facts<'_>) -> Option<Signal> {
    let (late, final_km) = (facts.late.as_ref()?, facts.final_km?);
    let fits = facts.fits(late);
    let older = match (late.older_km, late.is_first) {
        (Some(km), _) => km.to_string(),
        (None, true) => "the first".to_owned(),
        (None, false) => "unknown".to_owned(),
    };
    let around = format!("{older} to {} km", late.newer_km);
    let signal = Signal::new("neighbours", Weight::Doubts, final_km.to_string(), around.as_str());
    Some(signal.when(!fits, Verdict::Review, Reason::LowConfidence, || {
        format!("came late with {final_km} km, the verified readings around it are {around}")
    }))
}

/// A display cuts off what it has no digits for: the true mileage lies in [shown, shown + last digit's unit). It went
/// back only where that whole interval lies below the last verified reading.
fn rollback(facts: &Facts<'_>) -> Option<Signal> {
    let (chosen, previous) = (facts.chosen.as_ref()?, facts.previous.filter(|_| facts.late.is_none())?);
    let back = chosen.value + last_digit(chosen.value) <= previous;
    let sure = chosen.confidence >= facts.rules.auto_accept;
    let (verdict, reason) =
        if sure { (Verdict::Rejected, Reason::Rollback) } else { (Verdict::Review, Reason::LowConfidence) };
    let weight = if sure { Weight::Rejects } else { Weight::Doubts };
    let signal = Signal::new("rollback", weight, chosen.value.to_string(), previous.to_string());
    Some(signal.when(back, verdict, reason, || {
        let unit = facts.unit.label();
        format!(
            "read {} {unit}, last verified {previous} {unit}, confidence {}",
            chosen.value, chosen.confidence
        )
    }))
}

fn speed(facts: &Facts<'_>) -> Option<Signal> {
    let (vehicle, final_km) = (facts.vehicle.filter(|_| facts.late.is_none())?, facts.final_km?);
    let distance_km = (final_km - vehicle.last_km).max(Decimal::ZERO);
    let elapsed_us = facts.read_at.0.saturating_sub(vehicle.last_at.0);
    let hours = Decimal::from(elapsed_us.max(0)) / HOUR_US;
    let possible_km = facts.rules.speed_limit_kmh * hours + facts.rules.speed_slack_km;
    let (value, threshold) = (distance_km.to_string(), possible_km.round_dp(3).to_string());
    if elapsed_us < 0 && facts.event.review.is_none() {
        let signal = Signal::new("distance_for_time", Weight::Doubts, value, threshold);
        return Some(signal.when(true, Verdict::Review, Reason::StalePhoto, || {
            format!(
                "taken {} s before the vehicle's last verified photo",
                elapsed_us.unsigned_abs() / 1_000_000
            )
        }));
    }
    let signal = Signal::new("distance_for_time", Weight::Rejects, value, threshold);
    Some(signal.when(distance_km > possible_km, Verdict::Rejected, Reason::ImpossibleSpeed, || {
        format!("{distance_km} km in {} h, possible {} km", hours.round_dp(2), possible_km.round_dp(1))
    }))
}

/// What can be driven in an hour is not driven in every hour of a day. Since the last verified photo by what the odometer showed when;
/// since earlier ones by their acceptance, where that was a day or more before: photos that were sent together were not taken together.
fn velocity(facts: &Facts<'_>) -> Option<Signal> {
    let (vehicle, final_km) = (facts.vehicle.filter(|_| facts.late.is_none())?, facts.final_km?);
    let accepted = facts.event.header.accepted_at.0;
    let earlier =
        vehicle.recent.iter().map(|before| (before.km, accepted.saturating_sub(before.accepted_at.0)));
    let spans = earlier.filter(|(_, span)| *span >= DAY_US);
    let spans = spans.chain([(vehicle.last_km, facts.read_at.0.saturating_sub(vehicle.last_at.0))]);
    let a_day = |(km, span): (Decimal, i64)| {
        (final_km - km).max(Decimal::ZERO) * Decimal::from(DAY_US) / Decimal::from(span.max(DAY_US))
    };
    let most = spans.map(a_day).max()?.round_dp(1);
    let limit = facts.rules.km_a_day;
    let signal = Signal::new("km_a_day", Weight::Doubts, most.to_string(), limit.to_string());
    Some(signal.when(most > limit, Verdict::Review, Reason::ImpossibleSpeed, || {
        format!("{most} km a day, more than {limit}")
    }))
}

fn capture_age(facts: &Facts<'_>) -> Option<Signal> {
    let captured = facts.event.stamp.captured_at?;
    let age_us = facts.event.header.accepted_at.0.saturating_sub(captured.0);
    let seconds = age_us / 1_000_000;
    let most = facts.rules.captured_back_us / 1_000_000;
    let signal = Signal::new("capture_age_seconds", Weight::Doubts, seconds, most);
    Some(signal.when(age_us > facts.rules.captured_back_us, Verdict::Review, Reason::StalePhoto, || {
        format!("taken {} days before it was sent", seconds / 86_400)
    }))
}

/// Who edits a number is not always so careless; who only made the picture brighter is asked by a person.
fn edited_by(facts: &Facts<'_>) -> Option<Signal> {
    let editor = facts.event.stamp.camera.as_ref()?.edited_by.as_deref();
    let signal = Signal::new("edited_by", Weight::Doubts, editor, Value::Null);
    Some(signal.when(editor.is_some(), Verdict::Review, Reason::EditedPhoto, || {
        format!("the file was written by {}", editor.unwrap_or_default())
    }))
}

/// Whoever photographs a screen photographs what somebody else's dashboard, or an edited photo, shows on it. A fabric or a perforated panel
/// that fills the frame has a grid too: a person tells them apart.
fn screen_grid(facts: &Facts<'_>) -> Option<Signal> {
    let grid = Decimal::from_f64(facts.event.quality.as_ref()?.grid?)?.round_dp(4);
    let most = facts.rules.screen_grid;
    let signal = Signal::new("screen_grid", Weight::Doubts, grid.to_string(), most.to_string());
    Some(signal.when(grid >= most, Verdict::Review, Reason::PhotoOfScreen, || {
        let percent = |share: Decimal| (share * Decimal::ONE_HUNDRED).round();
        let (grid, most) = (percent(grid), percent(most));
        format!("a fine regular pattern, as of a screen's pixels, covers {grid} % of the photo ({most} % or more is doubted)")
    }))
}

/// When the camera says it was taken, and by how much that may be off for want of its zone.
fn camera_time(facts: &Facts<'_>) -> Option<(Micros, i64)> {
    let camera = facts.event.stamp.camera.as_ref()?;
    Some((camera.taken_at?, if camera.zone_known { 0 } else { facts.rules.camera_zone_us }))
}

fn camera_age(facts: &Facts<'_>) -> Option<Signal> {
    let (taken, zone_us) = camera_time(facts)?;
    let age_us = facts.event.header.accepted_at.0.saturating_sub(taken.0);
    let (back_us, ahead_us) = (facts.rules.captured_back_us + zone_us, facts.rules.camera_ahead_us + zone_us);
    let threshold = json!({ "before": back_us / 1_000_000, "after": ahead_us / 1_000_000 });
    let signal = Signal::new("camera_age_seconds", Weight::Doubts, age_us / 1_000_000, threshold);
    let speaks = age_us > back_us || age_us < -ahead_us;
    Some(signal.when(speaks, Verdict::Review, Reason::StalePhoto, || {
        let days = age_us.unsigned_abs() / DAY_US.unsigned_abs();
        let side = if age_us > 0 { "before" } else { "after" };
        format!("by the camera's clock it was taken {days} days {side} it was sent")
    }))
}

/// The phone's own time moves the vehicle's clock, and with it what distance is possible: the file speaks for it or against it.
fn camera_difference(facts: &Facts<'_>) -> Option<Signal> {
    let ((taken, zone_us), captured) = (camera_time(facts)?, facts.event.stamp.captured_at?);
    let apart_us = captured.0.saturating_sub(taken.0).saturating_abs();
    let most_us = facts.rules.camera_apart_us + zone_us;
    let (value, threshold) = (apart_us / 1_000_000, most_us / 1_000_000);
    let signal = Signal::new("camera_difference_seconds", Weight::Doubts, value, threshold);
    Some(signal.when(apart_us > most_us, Verdict::Review, Reason::StalePhoto, || {
        let minutes = apart_us / 60_000_000;
        format!("the time that the phone told and that of the camera are {minutes} minutes apart")
    }))
}

fn uploads_of_user(facts: &Facts<'_>) -> Option<Signal> {
    let (at, rules) = (facts.event.header.accepted_at, facts.rules);
    let with_this = |span_us| 1 + facts.conduct.map_or(0, |conduct| conduct.uploads_within(at, span_us));
    let (hour, day) = (with_this(DAY_US / 24), with_this(DAY_US));
    let threshold = json!({ "hour": rules.uploads_an_hour, "day": rules.uploads_a_day });
    let value = json!({ "hour": hour, "day": day });
    let signal = Signal::new("uploads_of_user", Weight::Doubts, value, threshold);
    let speaks = hour > rules.uploads_an_hour || day > rules.uploads_a_day;
    Some(signal.when(speaks, Verdict::Review, Reason::Velocity, || {
        let (most_hour, most_day) = (rules.uploads_an_hour, rules.uploads_a_day);
        format!("the account's photo number {hour} in an hour (at most {most_hour}) and {day} in a day (at most {most_day})")
    }))
}

/// Of an account that was turned down for fraud lately nothing is accepted without a person.
fn standing(facts: &Facts<'_>) -> Option<Signal> {
    let (at, rules) = (facts.event.header.accepted_at, facts.rules);
    let frauds = facts.conduct.map_or(0, |conduct| conduct.frauds_before(at));
    let age_us = at.0.saturating_sub(facts.event.stamp.account_created_at.0);
    let is_young = age_us < rules.young_us;
    let most = if is_young { rules.frauds_of_young } else { rules.frauds };
    let value = json!({ "rejected_for_fraud": frauds, "account_age_days": age_us / DAY_US });
    let signal = Signal::new("standing", Weight::Doubts, value, most);
    Some(signal.when(frauds >= most, Verdict::Review, Reason::EarlierRejections, || {
        let young = if is_young { " of a young account" } else { "" };
        format!("{frauds} photos{young} were turned down for fraud in the 30 days before")
    }))
}

fn claim(facts: &Facts<'_>) -> Option<Signal> {
    let (chosen, claimed) = (facts.chosen.as_ref()?, facts.claimed?);
    let difference = (chosen.value - claimed).abs();
    let most = facts.rules.claim_slack.max(chosen.value * facts.rules.claim_share);
    let signal = Signal::new("claim_difference", Weight::Doubts, difference.to_string(), most.to_string());
    Some(signal.when(difference > most, Verdict::Review, Reason::ClaimMismatch, || {
        let unit = facts.unit.label();
        format!("read {} {unit}, typed {claimed} {unit}", chosen.value)
    }))
}

/// Two drivers of one model may stand at the same number in the same light: a person compares the two photos.
fn look_alike(facts: &Facts<'_>) -> Option<Signal> {
    let other = facts.event.look_alike.as_ref()?;
    let value = json!({ "upload_id": other.upload_id.to_string(), "likeness": other.likeness.to_string() });
    let signal = Signal::new("look_alike", Weight::Doubts, value, Value::Null);
    let own = other.user_id == facts.event.header.user_id;
    let whose = if own { "another vehicle of the account" } else { "another account" };
    Some(signal.when(true, Verdict::Review, Reason::DuplicatePhoto, || {
        format!("it shows what a photo of {whose} shows, number and surroundings ({} alike)", other.likeness)
    }))
}

fn several(facts: &Facts<'_>) -> Option<Signal> {
    let several = facts.event.reading.as_ref()?.several_readings;
    let signal = Signal::new("several_readings", Weight::Doubts, several, false);
    Some(signal.when(several, Verdict::Review, Reason::SeveralReadings, || {
        "two or more odometer values are about equally likely".into()
    }))
}

fn confidence(facts: &Facts<'_>) -> Option<Signal> {
    let (value, least) = (facts.chosen.as_ref()?.confidence, facts.rules.auto_accept);
    let signal = Signal::new("confidence", Weight::Doubts, value.to_string(), least.to_string());
    Some(signal.when(value < least, Verdict::Review, Reason::LowConfidence, || format!("{value} < {least}")))
}

fn auto_accept(facts: &Facts<'_>) -> Option<Signal> {
    let on = facts.event.stamp.auto_accept;
    let signal = Signal::new("auto_accept", Weight::Doubts, on, true);
    Some(signal.when(!on, Verdict::Review, Reason::LowConfidence, || {
        "every verdict goes to a person: auto_accept was off at acceptance".into()
    }))
}
