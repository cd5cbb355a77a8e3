//! The events of an upload from acceptance to decision.

use rust_decimal::Decimal;
use schemas::events::{
    Candidate, Correction, Fault, FrameQuality, ImageSize, Lighting, LimitCharge, LimitType, OdometerRead,
    PartKind, PartName, ReadingResult, RewardCalculated, RewardGranted, RewardPart, Root, Stamp, Unit,
    UploadAbandoned, UploadDecided, UploadGraded, UploadHeader, UploadReceived, Verdict,
};
use schemas::ids::{EventId, Micros, RewardId, UploadId, UserId, VehicleId, derived};
use schemas::reason::Reason;
use schemas::testing::{example, received_example};
use sinks::postgres::UploadEvent;
use uuid::Uuid;

/// 2024-01-01T00:00:00Z, a Monday.
pub const START: i64 = 1_704_067_200_000_000;
/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;

/// The n-th upload of a user, accepted on day n: 10 miles (16.09344 km) after the one before.
#[derive(Clone, Debug)]
pub struct Story {
    pub header: UploadHeader,
    pub stamp: Stamp,
    pub day: i64,
    /// Whether the photo was too dark to be read.
    pub dark: bool,
}

impl Story {
    pub fn new(user: u128, day: i64) -> Self {
        let user_id = UserId(Uuid::from_u128(user));
        let upload = Uuid::from_u128(user * 1_000_000 + u128::try_from(day).unwrap());
        let accepted_at = Micros(START + day * DAY);
        let received = received_example();
        let header = UploadHeader {
            event_id: EventId(upload),
            upload_id: UploadId(upload),
            user_id,
            vehicle_id: VehicleId(Uuid::from_u128(user + 7)),
            occurred_at: accepted_at,
            accepted_at,
            image_hash: "0f".repeat(32),
            object_key: format!("photos/{user_id}/0f"),
            image_url: format!("file:///photos/{user_id}/0f"),
            file_size: 4321,
            mime_type: "image/jpeg".into(),
            ..received.header
        };
        let stamp = Stamp {
            claimed_mileage: Some(Decimal::new(100_000 + day * 100, 1)),
            claimed_unit: Some(Unit::Km),
            account_created_at: Micros(START - DAY),
            verification_level: "basic".into(),
            config_revision: 1,
            ..received.stamp
        };
        Self { header, stamp, day, dark: false }
    }

    fn at(&self, stage: &str, seconds: i64) -> UploadHeader {
        UploadHeader {
            event_id: derived(self.header.event_id, stage, 0),
            occurred_at: Micros(self.header.accepted_at.0 + seconds * 1_000_000),
            ..self.header.clone()
        }
    }

    pub fn received(&self) -> UploadEvent {
        UploadEvent::Received(UploadReceived { header: self.header.clone(), stamp: self.stamp.clone() })
    }

    fn quality() -> FrameQuality {
        FrameQuality {
            mean: 90.0,
            p5: 10.0,
            p99: 200.0,
            tenengrad: 20.0,
            blob: 0.0,
            score: Decimal::new(81, 2),
            lighting: Lighting::Good,
            blur: false,
            glare: true,
            grid: None,
        }
    }

    pub fn graded(&self) -> UploadEvent {
        UploadEvent::Graded(UploadGraded {
            header: self.at("quality_check", 1),
            stamp: self.stamp.clone(),
            image: Some(ImageSize { width: 4000, height: 3000 }),
            quality: Some(Self::quality()),
            ..example("normal-readable")
        })
    }

    pub fn read(&self) -> UploadEvent {
        let best = Candidate {
            value: Decimal::new(100_000 + self.day * 100, 1),
            unit: Some(Unit::Miles),
            confidence: Decimal::new(979, 3),
        };
        let reading = ReadingResult {
            service: "Milestream Embedded".into(),
            reader_version: "reader@1".into(),
            processing_time_ms: 321,
            best: Some(best.clone()),
            candidates: vec![best],
            several_readings: false,
            fallback_used: false,
            detected_text: None,
            bounding_boxes: r#"{"width":4000,"height":3000,"boxes":[]}"#.into(),
            quality_score: Decimal::new(77, 2),
            lighting: Lighting::Fair,
            blur: false,
            glare: false,
            attempts: Vec::new(),
        };
        let fault = Fault { reason: Reason::TooDark, detail: "as measured".to_owned() };
        UploadEvent::Read(Box::new(OdometerRead {
            header: self.at("odometer_reading", 2),
            stamp: self.stamp.clone(),
            image: Some(ImageSize { width: 4000, height: 3000 }),
            quality: Some(Self::quality()),
            fault: self.dark.then_some(fault),
            reading: (!self.dark).then_some(reading),
            pixel_hash: None,
            pixel_holder: None,
            look_alike: None,
            review: None,
        }))
    }

    pub fn decided(&self, verdict: Verdict, reason: Option<Reason>) -> UploadEvent {
        let miles = |day: i64| Decimal::new(100_000 + day * 100, 1);
        let verified = verdict == Verdict::Verified;
        let seconds = if verdict == Verdict::Review { 3 } else { 4 };
        UploadEvent::Decided(UploadDecided {
            header: self.at(verdict.label(), seconds),
            stamp: self.stamp.clone(),
            verdict,
            reason,
            detail: reason.map(|_| "a sentence".to_owned()),
            unit: Unit::Miles,
            claimed_mileage: Some(Decimal::new(6_213_711, 3)),
            ai_mileage: Some(miles(self.day)),
            final_mileage: verified.then(|| miles(self.day)),
            confidence: Some(Decimal::new(979, 3)),
            previous_mileage: Some(miles(self.day - 1)),
            distance_km: verified.then(|| Decimal::new(1_609_344, 5)),
            signals: "{}".into(),
            review: None,
            ..example("normal-verified")
        })
    }

    /// An operator ends it, and its reading comes all the same.
    pub fn abandoned(&self) -> Vec<UploadEvent> {
        let by = ("1", self.at("abandoned", 60).occurred_at, Root { partition: 0, offset: 1 });
        let said = ("an operator has ended it".to_owned(), None);
        let end = UploadAbandoned::of((self.header.clone(), self.stamp.clone()), said, by);
        let decided = self.decided(Verdict::Failed, Some(Reason::Abandoned));
        vec![self.received(), self.graded(), UploadEvent::Abandoned(Box::new(end)), decided, self.read()]
    }

    /// The verified reading was ten miles too high, and the distance nothing.
    pub fn corrected(&self, number: i32) -> UploadEvent {
        let UploadEvent::Decided(verified) = self.decided(Verdict::Verified, None) else {
            panic!("a decision")
        };
        let mileage = verified.previous_mileage.unwrap() + Decimal::from(2 - number);
        let correction = Correction {
            number,
            mileage_before: verified.final_mileage.unwrap(),
            mileage,
            corrected_at: self.at("corrected", 60).occurred_at,
        };
        UploadEvent::Decided(UploadDecided {
            header: self.at(&format!("corrected {number}"), 60 + i64::from(number)),
            final_mileage: Some(mileage),
            distance_km: Some(Decimal::ZERO),
            correction: Some(correction),
            ..verified
        })
    }

    /// 16.09 km at 0.01 B3TR, and five per cent.
    pub fn calculated(&self) -> UploadEvent {
        let part = |name, kind, factor, amount| RewardPart { name, kind, factor, amount, label: None };
        UploadEvent::Calculated(RewardCalculated {
            header: self.at("reward_calculation", 5),
            stamp: self.stamp.clone(),
            reward_id: RewardId::of(self.header.upload_id),
            distance_km: Decimal::new(1609, 2),
            rate: Decimal::new(1, 2),
            base: Decimal::new(1609, 4),
            bonus: Decimal::new(8045, 6),
            parts: vec![
                part(PartName::Base, PartKind::Base, Decimal::new(1, 2), Decimal::new(1609, 4)),
                part(PartName::VerificationLevel, PartKind::Percent, 5.into(), Decimal::new(8045, 6)),
            ],
            ..example("normal-basic")
        })
    }

    /// All of 0.168945 B3TR, or what is given.
    pub fn granted(&self, amount: Option<Decimal>) -> UploadEvent {
        let calculated = Decimal::new(168_945, 6);
        let granted = amount.unwrap_or(calculated);
        let cut = granted < calculated;
        let charge = LimitCharge {
            limit_type: LimitType::Daily,
            period_start: self.header.accepted_at,
            period_end: Micros(self.header.accepted_at.0 + DAY),
            limit_amount: 30.into(),
            amount: granted,
            current_amount: 30.into(),
        };
        UploadEvent::Granted(RewardGranted {
            header: self.at("limit_check", 6),
            stamp: self.stamp.clone(),
            reward_id: RewardId::of(self.header.upload_id),
            calculated,
            granted,
            reason: cut.then_some(Reason::OverLimit),
            detail: cut.then(|| "a sentence".to_owned()),
            remaining: Decimal::ZERO,
            charges: vec![charge],
            ..example("normal-whole")
        })
    }

    /// All events, with a review before the decision where `reviewed`.
    pub fn events(&self, verdict: Verdict, reason: Option<Reason>, reviewed: bool) -> Vec<UploadEvent> {
        let mut events = vec![self.received(), self.graded(), self.read()];
        if reviewed {
            events.push(self.decided(Verdict::Review, Some(Reason::LowConfidence)));
        }
        events.push(self.decided(verdict, reason));
        if verdict == Verdict::Verified {
            // Every third day's budget holds nothing, every other third's a part.
            let granted = [None, Some(Decimal::ZERO), Some(Decimal::new(1, 8))];
            events.extend([self.calculated(), self.granted(granted[usize::try_from(self.day % 3).unwrap()])]);
        }
        events
    }
}
