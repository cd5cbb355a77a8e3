use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::{Candidate, Lighting};
use schemas::ids::{EventId, Micros, UploadId, UserId, VehicleId};
use schemas::testing::{example, received_example};
use uuid::Uuid;

use super::super::fit::trunc2;
use super::*;

const UPLOAD: UploadId = UploadId(Uuid::from_u128(1));

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn header() -> UploadHeader {
    UploadHeader {
        event_id: EventId(Uuid::from_u128(9)),
        upload_id: UPLOAD,
        user_id: UserId(Uuid::from_u128(2)),
        vehicle_id: VehicleId(Uuid::from_u128(3)),
        occurred_at: Micros(2_000_000),
        accepted_at: Micros(1_000_000),
        image_hash: "ab".repeat(32),
        object_key: "photos/u/h".into(),
        image_url: "file:///photos/u/h".into(),
        file_size: 1234,
        mime_type: "image/jpeg".into(),
        ..received_example().header
    }
}

fn stamp() -> Stamp {
    Stamp { account_created_at: Micros(0), verification_level: "basic".into(), ..received_example().stamp }
}

fn verified() -> UploadDecided {
    UploadDecided {
        header: header(),
        stamp: stamp(),
        verdict: Verdict::Verified,
        unit: Unit::Miles,
        claimed_mileage: Some(decimal("10.999")),
        ai_mileage: Some(decimal("11")),
        final_mileage: Some(decimal("11")),
        confidence: Some(decimal("0.979")),
        previous_mileage: Some(decimal("10")),
        distance_km: Some(decimal("1.609344")),
        signals: "{}".into(),
        review: None,
        ..example("normal-verified")
    }
}

fn graded_quality() -> FrameQuality {
    FrameQuality {
        mean: 90.0,
        p5: 10.0,
        p99: 200.0,
        tenengrad: 20.0,
        blob: 0.0,
        score: decimal("0.819"),
        lighting: Lighting::Good,
        blur: false,
        glare: true,
        grid: None,
    }
}

fn reading(best: Option<Candidate>) -> ReadingResult {
    ReadingResult {
        service: "Milestream Embedded".into(),
        reader_version: "r@1".into(),
        processing_time_ms: 321,
        candidates: best.clone().into_iter().collect(),
        best,
        several_readings: true,
        fallback_used: false,
        detected_text: None,
        bounding_boxes: r#"{"width":4,"height":3,"boxes":[]}"#.into(),
        quality_score: decimal("0.5"),
        lighting: Lighting::Fair,
        blur: true,
        glare: false,
        attempts: Vec::new(),
    }
}

fn read_event(reading: Option<ReadingResult>) -> OdometerRead {
    let fault =
        reading.is_none().then(|| Fault { reason: Reason::TooDark, detail: "mean 3.1 is below 4.5".into() });
    OdometerRead {
        header: header(),
        stamp: stamp(),
        image: Some(ImageSize { width: 4, height: 3 }),
        quality: Some(graded_quality()),
        fault,
        reading,
        pixel_hash: None,
        pixel_holder: None,
        look_alike: None,
        review: None,
    }
}

#[test]
fn an_accepted_upload_is_uploaded_and_pending_with_its_claim_cut_to_two_decimals() {
    let stamp =
        Stamp { claimed_mileage: Some(decimal("10.999")), claimed_unit: Some(Unit::Miles), ..stamp() };
    let rows = received(&UploadReceived { header: header(), stamp }, None).unwrap();
    assert_eq!((rows.upload.status, rows.upload.rank, rows.upload.processed_at), ("uploaded", 0, None));
    assert_eq!(rows.upload.created_at, Micros(1_000_000).to_utc());
    assert_eq!(rows.upload.updated_at, Micros(2_000_000).to_utc());
    let mileage = rows.mileage.unwrap();
    assert_eq!((mileage.status, mileage.rank, mileage.unit), ("pending", 0, "miles"));
    assert_eq!(mileage.claimed, Some(decimal("10.99")));
    assert_eq!(rows.verification, None);
}

#[test]
fn without_a_claim_the_unit_is_km() {
    let rows = received(&UploadReceived { header: header(), stamp: stamp() }, None).unwrap();
    assert_eq!(rows.mileage.map(|mileage| (mileage.unit, mileage.claimed)), Some(("km", None)));
}

#[test]
fn the_file_name_is_opened_with_the_users_key_and_null_with_none_or_another() {
    let key = UserKey::generate();
    let sealed = key.seal(UPLOAD, "IMG_0042.jpg").unwrap();
    let event =
        UploadReceived { header: header(), stamp: Stamp { original_filename: Some(sealed), ..stamp() } };
    let name = |key: Option<&UserKey>| received(&event, key).unwrap().upload.original_filename;
    assert_eq!(name(Some(&key)).as_deref(), Some("IMG_0042.jpg"));
    assert_eq!(name(None), None);
    assert_eq!(name(Some(&UserKey::generate())), None);
}

#[test]
fn a_grade_brings_dimensions_and_quality_and_an_undecodable_photo_neither() {
    let event = UploadGraded {
        header: header(),
        stamp: stamp(),
        image: Some(ImageSize { width: 4000, height: 3000 }),
        quality: Some(graded_quality()),
        ..example("normal-readable")
    };
    let rows = graded(&event).unwrap();
    assert_eq!((rows.upload.status, rows.upload.rank), ("processing", 1));
    assert_eq!(rows.upload.image_dimensions, Some(json!({ "width": 4000, "height": 3000 })));
    let quality = QualityColumns { score: decimal("0.81"), lighting: "good", blur: false, glare: true };
    assert_eq!(rows.verification.unwrap().quality, Some(quality));
    assert_eq!(rows.mileage, None);
    let rows = graded(&UploadGraded { image: None, quality: None, ..event }).unwrap();
    assert_eq!((rows.upload.image_dimensions, rows.verification.unwrap().quality), (None, None));
}

#[test]
fn a_reading_is_written_in_the_claims_unit_until_the_decision() {
    let best = |unit| Some(Candidate { value: decimal("100"), unit, confidence: decimal("0.999") });
    let ai = |unit| read(&read_event(Some(reading(best(unit)))), None).unwrap().mileage.unwrap().ai;
    assert_eq!(ai(Some(Unit::Km)), Some(decimal("100")));
    // 100 miles = 160.9344 km, cut; without a unit the number is taken as it is.
    assert_eq!(ai(Some(Unit::Miles)), Some(decimal("160.93")));
    assert_eq!(ai(None), Some(decimal("100")));
}

#[test]
fn a_reading_refines_the_quality_and_names_its_service_only_where_something_was_read() {
    let rows = read(&read_event(Some(reading(None))), None).unwrap();
    let verification = rows.verification.unwrap();
    assert_eq!(verification.quality.unwrap().lighting, "fair");
    let columns = verification.reading.unwrap();
    assert_eq!((columns.service, columns.confidence), (None, None));
    assert_eq!((columns.processing_time, columns.several, columns.fallback), (Some(321), true, false));
    assert_eq!(rows.mileage.unwrap().ai, None);
}

#[test]
fn a_photo_that_was_not_read_keeps_its_grade_and_says_why() {
    let verification = read(&read_event(None), None).unwrap().verification.unwrap();
    assert_eq!(verification.error_details.as_deref(), Some("too_dark: mean 3.1 is below 4.5"));
    assert_eq!(verification.quality.unwrap().lighting, "good");
    assert_eq!(verification.reading, Some(ReadingColumns::default()));
}

#[test]
fn a_verified_upload_is_approved_with_mileages_and_distance_cut_toward_zero() {
    let rows = decided(&verified(), None).unwrap();
    assert_eq!((rows.upload.status, rows.upload.rank), ("verified", 2));
    assert_eq!(rows.upload.processed_at, Some(Micros(2_000_000).to_utc()));
    let mileage = rows.mileage.unwrap();
    assert_eq!((mileage.status, mileage.rank, mileage.unit), ("approved", 2, "miles"));
    assert_eq!(mileage.claimed, Some(decimal("10.99")));
    assert_eq!((mileage.accepted, mileage.previous), (Some(decimal("11")), Some(decimal("10"))));
    assert_eq!(mileage.distance, Some(decimal("1.60")));
    assert_eq!(mileage.confidence, Some(decimal("0.97")));
    assert_eq!((mileage.rejection_reason, rows.verification.unwrap().error_details), (None, None));
}

#[test]
fn a_rejected_upload_has_code_and_sentence_and_no_accepted_mileage() {
    let event = UploadDecided {
        verdict: Verdict::Rejected,
        reason: Some(Reason::Rollback),
        detail: Some("11 is below 12".into()),
        ..verified()
    };
    let rows = decided(&event, None).unwrap();
    assert_eq!(rows.upload.status, "rejected");
    let mileage = rows.mileage.unwrap();
    assert_eq!((mileage.status, mileage.accepted, mileage.distance), ("rejected", None, None));
    assert_eq!(mileage.rejection_reason.as_deref(), Some("rollback: 11 is below 12"));
    assert_eq!(rows.verification.unwrap().error_details.as_deref(), Some("rollback: 11 is below 12"));
    let advised = decided(&UploadDecided { detail: None, ..event }, None).unwrap().mileage.unwrap();
    let text = format!("rollback: {}", Reason::Rollback.advice());
    assert_eq!(advised.rejection_reason, Some(text));
}

#[test]
fn a_failed_upload_is_rejected_as_our_fault_whatever_the_cause() {
    let event = UploadDecided {
        verdict: Verdict::Failed,
        reason: Some(Reason::BadDatum),
        detail: Some("the photo is gone".into()),
        ..verified()
    };
    let rows = decided(&event, None).unwrap();
    assert_eq!((rows.upload.status, rows.upload.rank), ("failed", 2));
    let mileage = rows.mileage.unwrap();
    assert_eq!((mileage.status, mileage.rank), ("rejected", 2));
    assert_eq!(mileage.rejection_reason.as_deref(), Some("processing_failed: the photo is gone"));
}

#[test]
fn an_upload_that_an_operator_has_ended_says_so_also_once_its_reading_comes_all_the_same() {
    let ended = UploadDecided {
        verdict: Verdict::Failed,
        reason: Some(Reason::Abandoned),
        detail: Some("an operator has ended it: the photo is lost".into()),
        final_mileage: None,
        distance_km: None,
        ..verified()
    };
    let rows = decided(&ended, None).unwrap();
    let (upload, mileage) = (&rows.upload, rows.mileage.as_ref().unwrap());
    assert_eq!((upload.status, upload.processed_at.is_some(), mileage.status), ("failed", true, "rejected"));
    let why = Some("abandoned: an operator has ended it: the photo is lost");
    assert_eq!(mileage.rejection_reason.as_deref(), why);
    let mut folded = crate::postgres::fold::Folded::first(&rows);
    folded.add(&read(&read_event(Some(reading(None))), None).unwrap());
    let after = folded.mileage.unwrap();
    assert_eq!(
        (folded.upload.status, after.rejection_reason.as_deref(), after.accepted),
        ("failed", why, None)
    );
}

#[test]
fn an_upload_with_a_person_stays_in_the_works_without_a_rejection() {
    let event = UploadDecided { verdict: Verdict::Review, reason: Some(Reason::LowConfidence), ..verified() };
    let rows = decided(&event, None).unwrap();
    assert_eq!((rows.upload.status, rows.upload.rank, rows.upload.processed_at), ("processing", 1, None));
    let mileage = rows.mileage.unwrap();
    assert_eq!((mileage.status, mileage.rank), ("manual_review", 1));
    assert_eq!((mileage.accepted, mileage.distance, mileage.rejection_reason), (None, None, None));
    assert!(rows.verification.unwrap().error_details.unwrap().starts_with("low_confidence: "));
}

#[test]
fn what_nobody_has_looked_at_in_time_has_no_reviewer_and_counts_as_no_fraud() {
    let review = Review {
        reviewer_id: Review::NOBODY,
        decided_at: Micros(3_000_000),
        mileage: None,
        unit: None,
        reason: Some(Reason::ReviewTimeout),
        notes: None,
    };
    let event = UploadDecided {
        verdict: Verdict::Rejected,
        reason: review.reason,
        review: Some(review.clone()),
        ..verified()
    };
    let mileage = decided(&event, None).unwrap().mileage.unwrap();
    assert_eq!((mileage.status, mileage.review), ("rejected", None));
    assert!(mileage.rejection_reason.unwrap().starts_with("review_timeout: "));
    assert!(!Reason::FRAUD.contains(&Reason::ReviewTimeout));
    let person = Review { reviewer_id: UserId(Uuid::from_u128(7)), ..review };
    let mileage = decided(&UploadDecided { review: Some(person), ..event }, None).unwrap().mileage.unwrap();
    assert_eq!(mileage.review.map(|columns| columns.reviewer), Some(Uuid::from_u128(7)));
}

#[test]
fn what_does_not_fit_is_refused_by_upload_and_column() {
    let refused = |event: UploadDecided| decided(&event, None).unwrap_err().to_string();
    let ai = |text| refused(UploadDecided { ai_mileage: Some(decimal(text)), ..verified() });
    assert_eq!(
        ai("100000000"),
        format!("upload {UPLOAD}: mileage_data.ai_verified_mileage is not below 100,000,000")
    );
    assert!(ai("-0.001").contains("mileage_data.ai_verified_mileage is negative"));
    let confidence = refused(UploadDecided { confidence: Some(decimal("1.001")), ..verified() });
    assert!(confidence.contains("mileage_data.mileage_confidence is not within 0 and 1"));
    let large = UploadHeader { file_size: i64::MAX, ..header() };
    assert!(refused(UploadDecided { header: large, ..verified() }).contains("odometer_uploads.file_size"));
    let url = UploadHeader { image_url: "é".repeat(501), ..header() };
    assert!(refused(UploadDecided { header: url, ..verified() }).contains("longer than 500 characters"));
    let unread = UploadDecided { final_mileage: None, ..verified() };
    assert!(refused(unread).contains("mileage_data.final_mileage"));
    let silent = UploadDecided { verdict: Verdict::Rejected, ..verified() };
    assert!(refused(silent).contains("mileage_data.rejection_reason"));
}

#[test]
fn boxes_that_are_no_json_are_refused() {
    let broken = ReadingResult { bounding_boxes: "{".into(), ..reading(None) };
    let error = read(&read_event(Some(broken)), None).unwrap_err();
    assert_eq!(error.column, "upload_verifications.bounding_boxes");
}

proptest! {
    #[test]
    fn cutting_never_adds_and_takes_less_than_a_hundredth(units in 0_i64..10_i64.pow(15), scale in 0_u32..10) {
        let value = Decimal::new(units, scale);
        let cut = trunc2(value);
        prop_assert!(cut <= value && value - cut < Decimal::new(1, 2));
        prop_assert!(cut.scale() <= 2);
    }

    #[test]
    fn a_mileage_survives_the_way_to_miles_and_back_to_a_ten_thousandth(tenths in 0_i64..99_999_999) {
        let (fit, value) = (Fit(UPLOAD), Decimal::new(tenths, 1));
        let miles = fit.converted(value, Some(Unit::Km), Unit::Miles).unwrap();
        let back = fit.converted(miles, Some(Unit::Miles), Unit::Km).unwrap();
        prop_assert!((back - value).abs() < Decimal::new(1, 4));
    }
}

#[test]
fn a_persons_word_stands_over_a_rules_in_whatever_order_they_come() {
    let review = Review {
        reviewer_id: UserId(Uuid::from_u128(7)),
        decided_at: Micros(3_000_000),
        mileage: Some(1.into()),
        unit: None,
        reason: None,
        notes: None,
    };
    let by_rule = UploadDecided { verdict: Verdict::Rejected, reason: Some(Reason::Rollback), ..verified() };
    let [by_rule, by_person] = [by_rule, UploadDecided { review: Some(review), ..verified() }]
        .map(|event| decided(&event, None).unwrap());
    for order in [[&by_rule, &by_person], [&by_person, &by_rule]] {
        let mut folded = super::super::fold::Folded::first(order[0]);
        folded.add(order[1]);
        let mileage = folded.mileage.unwrap();
        assert_eq!((folded.upload.status, mileage.status), ("verified", "approved"));
        assert_eq!(
            (mileage.rejection_reason, mileage.accepted),
            (None, by_person.mileage.as_ref().unwrap().accepted)
        );
    }
}
