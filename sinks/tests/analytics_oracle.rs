//! What the numbers must be: summed straight over the events, without a database and without the sink's code.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike as _, Days, DurationRound as _, Months, NaiveDate, TimeDelta, Utc, Weekday};
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{AttemptState, PayoutState, PayoutUpdated, Stamp, UploadDecided, Verdict};
use schemas::ids::{Micros, UserId};
use schemas::reason::Reason;
use serde_json::json;
use sinks::analytics::AnalyticsEvent;

use crate::analytics_stories::{Key, Number};

/// g CO2e per km, as published for 2026; the petrol car's is the reference.
fn grams(kind: &str) -> Decimal {
    let hundredths = match kind {
        "diesel" => 17_265,
        "hybrid" | "plug_in" => 12_961,
        "lpg" => 19_553,
        "electric" => 2_686,
        _ => 16_152,
    };
    Decimal::new(hundredths, 2)
}

/// The numbers that a set of events makes, in whatever order they come.
pub fn fold(events: &[AnalyticsEvent]) -> BTreeMap<Key, Number> {
    let mut oracle = Oracle::default();
    let mut seen = BTreeSet::new();
    let (mut payouts, mut decisions) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            AnalyticsEvent::Received(e) if seen.insert(("received", e.header.upload_id.0)) => {
                let cuts = [vec![json!({})], stamp_cuts(&e.stamp)].concat();
                let at = (e.header.accepted_at, e.header.occurred_at);
                oracle.sum("uploads_accepted", &cuts, at, Decimal::ONE);
            }
            AnalyticsEvent::Calculated(e) if seen.insert(("calculated", e.reward_id.0)) => {
                let cuts = [json!({}), vehicle(&e.stamp)];
                let at = (e.header.accepted_at, e.header.occurred_at);
                oracle.sum("rewards_calculated", &cuts, at, e.base + e.bonus);
            }
            AnalyticsEvent::Granted(e) if seen.insert(("granted", e.reward_id.0)) => {
                let at = (e.header.accepted_at, e.header.occurred_at);
                let cuts = [vec![json!({})], stamp_cuts(&e.stamp)].concat();
                oracle.sum("rewards_granted", &cuts, at, e.granted);
                oracle.of_user("rewards_granted", e.header.user_id, at, e.granted);
                // The stories have the daily budget alone.
                let cuts = [json!({}), json!({ "limit_type": "daily" })];
                oracle.sum("rewards_cut", &cuts, at, e.calculated - e.granted);
            }
            AnalyticsEvent::Decided(e) => {
                decisions.push(e.as_ref());
                if e.verdict != Verdict::Review && seen.insert(("decided", e.header.upload_id.0)) {
                    oracle.decided(e);
                }
            }
            AnalyticsEvent::Paid(e) => payouts.push(e.as_ref()),
            _ => {}
        }
    }
    oracle.verdicts(&decisions);
    oracle.payments(&payouts);
    oracle.fees(&payouts);
    oracle.numbers
}

fn vehicle(stamp: &Stamp) -> serde_json::Value {
    let kind = stamp.vehicle_kind.as_str();
    json!({ "vehicle_kind": if kind == "a rocket" { "other" } else { kind } })
}

fn region(stamp: &Stamp) -> serde_json::Value {
    json!({ "region": if stamp.region == "nowhere" { "other" } else { stamp.region.as_str() } })
}

fn stamp_cuts(stamp: &Stamp) -> Vec<serde_json::Value> {
    let level = stamp.verification_level.as_str();
    let level = json!({ "user_type": if level == "gold" { "other" } else { level } });
    vec![vehicle(stamp), level, region(stamp)]
}

fn network() -> [serde_json::Value; 2] {
    [json!({}), json!({ "network": "vechain_testnet" })]
}

/// When it counts, and when it was told.
type At = (Micros, Micros);

#[derive(Default)]
struct Oracle {
    numbers: BTreeMap<Key, Number>,
}

impl Oracle {
    fn sum(&mut self, metric: &str, cuts: &[serde_json::Value], at: At, amount: Decimal) {
        if !amount.is_zero() {
            self.every(metric, cuts, at, amount, 1);
        }
    }

    fn every(&mut self, metric: &str, cuts: &[serde_json::Value], at: At, amount: Decimal, samples: i64) {
        for cut in cuts {
            for (period, start, end) in windows(at.0.to_utc()) {
                let text = cut.to_string().replace("\":\"", "\": \"");
                self.put((metric.into(), text, period.into(), start, None), end, at.1, amount, samples);
            }
        }
    }

    fn of_user(&mut self, metric: &str, user: UserId, at: At, amount: Decimal) {
        if amount.is_zero() {
            return;
        }
        for (period, start, end) in windows(at.0.to_utc()).into_iter().filter(|window| window.0 != "hour") {
            let key = (metric.into(), "{}".into(), period.into(), start, Some(user.0));
            self.put(key, end, at.1, amount, 1);
        }
    }

    fn put(&mut self, key: Key, end: DateTime<Utc>, published_at: Micros, amount: Decimal, samples: i64) {
        let mean = ["fee_per_reward", "manual_review", "auto_accept"].contains(&key.0.as_str());
        let created_at = published_at.to_utc();
        let empty = Number { end, exact: Decimal::ZERO, samples: 0, value: None, created_at };
        let number = self.numbers.entry(key).or_insert(empty);
        number.exact = (number.exact + amount).normalize();
        number.samples += samples;
        number.created_at = number.created_at.min(created_at);
        let value = if mean { number.exact.checked_div(number.samples.into()) } else { Some(number.exact) };
        number.value =
            value.map(|value| value.round_dp_with_strategy(4, RoundingStrategy::ToZero).normalize());
    }

    fn decided(&mut self, event: &UploadDecided) {
        let (header, stamp) = (&event.header, &event.stamp);
        let at = (header.occurred_at, header.occurred_at);
        let cuts = [
            json!({}),
            json!({ "outcome": event.verdict.label() }),
            json!({ "reason": event.reason.map_or("none", Reason::label) }),
            vehicle(stamp),
        ];
        self.sum("uploads_decided", &cuts, at, Decimal::ONE);
        let Some(km) = event.distance_km else { return };
        self.of_user("uploads_verified", header.user_id, at, Decimal::ONE);
        self.sum("distance", &[vec![json!({})], stamp_cuts(stamp)].concat(), at, km);
        self.of_user("distance", header.user_id, at, km);
        let (own, reference) = (grams(&stamp.vehicle_kind), grams("petrol"));
        let thousand = Decimal::ONE_THOUSAND;
        self.sum("co2_emitted", &[json!({}), vehicle(stamp)], at, km * own / thousand);
        let avoided = (km * (reference - own) / thousand).max(Decimal::ZERO);
        self.sum("co2_avoided", &[json!({}), vehicle(stamp), region(stamp)], at, avoided);
        self.of_user("co2_avoided", header.user_id, at, avoided);
    }

    /// The first verdict is a review if there ever was one; every verdict leaves its trace in `created_at`.
    fn verdicts(&mut self, decisions: &[&UploadDecided]) {
        let total = [json!({})];
        let mut first: BTreeMap<_, &UploadDecided> = BTreeMap::new();
        for event in decisions {
            let at = (event.header.occurred_at, event.header.occurred_at);
            for metric in ["manual_review", "auto_accept"] {
                self.every(metric, &total, at, Decimal::ZERO, 0);
            }
            let kept = first.entry(event.header.upload_id).or_insert(event);
            let rank = |event: &UploadDecided| (event.verdict != Verdict::Review, event.header.occurred_at);
            if rank(event) < rank(kept) {
                *kept = event;
            }
        }
        for event in first.values() {
            let at = (event.header.occurred_at, event.header.occurred_at);
            for (metric, verdict) in [("manual_review", Verdict::Review), ("auto_accept", Verdict::Verified)]
            {
                self.every(metric, &total, at, Decimal::from(u8::from(event.verdict == verdict)), 1);
            }
        }
    }

    fn payments(&mut self, payouts: &[&PayoutUpdated]) {
        let paid = |event: &PayoutUpdated| {
            let block = event.transaction.as_ref()?.block.as_ref()?;
            let at = (block.timestamp, event.header.occurred_at);
            matches!(event.state, PayoutState::Paid | PayoutState::Final).then_some(at)
        };
        let mut newest: BTreeMap<_, &PayoutUpdated> = BTreeMap::new();
        for event in payouts {
            if let Some(at) = paid(event) {
                self.every("rewards_paid", &network(), at, Decimal::ZERO, 0);
            }
            let kept = newest.entry(event.reward_id).or_insert(event);
            if event.revision > kept.revision {
                *kept = event;
            }
        }
        for event in newest.values() {
            if let Some(at) = paid(event) {
                self.every("rewards_paid", &network(), at, event.amount, 1);
            }
        }
    }

    fn fees(&mut self, payouts: &[&PayoutUpdated]) {
        let spent = |event: &PayoutUpdated| {
            let transaction = event.transaction.as_ref()?;
            let rewards = match transaction.state {
                AttemptState::Confirmed | AttemptState::Final => i64::from(transaction.clause_count),
                AttemptState::Reverted | AttemptState::RevertedFinal => 0,
                _ => return None,
            };
            let wei: i128 = transaction.fee_wei.as_ref()?.parse().unwrap();
            let at = (transaction.block.as_ref()?.timestamp, event.header.occurred_at);
            Some((at, Decimal::from_i128_with_scale(wei, 18), rewards))
        };
        let mut newest: BTreeMap<_, &PayoutUpdated> = BTreeMap::new();
        for event in payouts {
            let Some(transaction) = &event.transaction else { continue };
            if let Some((at, ..)) = spent(event) {
                self.every("payout_fee", &network(), at, Decimal::ZERO, 0);
                self.every("fee_per_reward", &network(), at, Decimal::ZERO, 0);
            }
            let kept = newest.entry(&transaction.tx_id).or_insert(event);
            if transaction.revision > kept.transaction.as_ref().unwrap().revision {
                *kept = event;
            }
        }
        for event in newest.values() {
            if let Some((at, fee, rewards)) = spent(event) {
                self.every("payout_fee", &network(), at, fee, 1);
                self.every("fee_per_reward", &network(), at, fee, rewards);
            }
        }
    }
}

/// The five windows that hold an instant.
pub fn windows(at: DateTime<Utc>) -> [(&'static str, DateTime<Utc>, DateTime<Utc>); 5] {
    let midnight = |date: NaiveDate| date.and_time(chrono::NaiveTime::MIN).and_utc();
    let hour = at.duration_trunc(TimeDelta::hours(1)).unwrap();
    let week = at.iso_week();
    let monday = NaiveDate::from_isoywd_opt(week.year(), week.week(), Weekday::Mon).unwrap();
    let first = NaiveDate::from_ymd_opt(at.year(), at.month(), 1).unwrap();
    let day = at.date_naive();
    [
        ("hour", hour, hour + TimeDelta::hours(1)),
        ("day", midnight(day), midnight(day + Days::new(1))),
        ("week", midnight(monday), midnight(monday + Days::new(7))),
        ("month", midnight(first), midnight(first + Months::new(1))),
        (
            "year",
            midnight(NaiveDate::from_ymd_opt(at.year(), 1, 1).unwrap()),
            midnight(NaiveDate::from_ymd_opt(at.year() + 1, 1, 1).unwrap()),
        ),
    ]
}
