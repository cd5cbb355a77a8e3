//! What a photo's metadata say: an editor and a time that contradicts are looked at by a person, and never refused for.

use super::*;
use schemas::events::CameraFacts;

const HOUR_US: i64 = DAY_US / 24;
const SECOND_US: i64 = 1_000_000;

/// A good photo of which the camera says that it was taken so long before acceptance, with its zone or without.
fn taken(before_us: i64, zone_known: bool) -> OdometerRead {
    let mut event = good();
    let taken_at = Some(Micros(event.header.accepted_at.0 - before_us));
    event.stamp.camera = Some(CameraFacts { taken_at, zone_known, edited_by: None });
    event
}

fn said(event: &OdometerRead) -> (Verdict, Option<Reason>) {
    let judgement = judged(event, Some(&vehicle("50001", Unit::Km)));
    (judgement.verdict, judgement.reason)
}

const STALE: (Verdict, Option<Reason>) = (Verdict::Review, Some(Reason::StalePhoto));
const GOOD: (Verdict, Option<Reason>) = (Verdict::Verified, None);

#[test]
fn a_file_of_an_editor_goes_to_a_person_who_reads_its_name_and_a_sure_refusal_goes_before() {
    let mut event = taken(600 * SECOND_US, true);
    event.stamp.camera.as_mut().unwrap().edited_by = Some("GIMP".to_owned());
    let judgement = judged(&event, Some(&vehicle("50001", Unit::Km)));
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Review, Some(Reason::EditedPhoto)));
    assert_eq!(judgement.detail.as_deref(), Some("the file was written by GIMP"));
    let check = &judgement.signals["checks"]["edited_by"];
    assert_eq!((&check["value"], &check["weight"]), (&"GIMP".into(), &0.5.into()));
    let back = judged(&event, Some(&vehicle("60000", Unit::Km)));
    assert_eq!((back.verdict, back.reason), (Verdict::Rejected, Some(Reason::Rollback)));
    event.review = Some(review::by_a_person(Some((dec("50310"), None))));
    assert_eq!(said(&event), GOOD, "a person has looked past it");
}

#[test]
fn what_the_metadata_do_not_say_is_held_against_nobody() {
    let mut event = good();
    event.stamp.camera = Some(CameraFacts::default());
    assert_eq!(said(&event), GOOD);
    let judgement = judged(&good(), None);
    let checks = judgement.signals["checks"].as_object().unwrap();
    assert!(["edited_by", "camera_age_seconds"].iter().all(|name| !checks.contains_key(*name)));
}

#[test]
fn a_cameras_time_is_believed_from_fourteen_days_before_acceptance_to_a_day_after_it_and_to_its_zone() {
    let said_of = |before_us: i64, zone_known: bool| {
        let mut event = taken(before_us, zone_known);
        event.stamp.captured_at = None;
        said(&event)
    };
    for (zone_known, zone_us) in [(true, 0), (false, 14 * HOUR_US)] {
        let (oldest, newest) = (14 * DAY_US + zone_us, -DAY_US - zone_us);
        assert_eq!([oldest, newest].map(|at| said_of(at, zone_known)), [GOOD; 2]);
        assert_eq!([oldest + 1, newest - 1].map(|at| said_of(at, zone_known)), [STALE; 2]);
    }
}

#[test]
fn what_the_phone_told_and_what_the_camera_wrote_may_lie_two_hours_apart_and_its_zone() {
    // The phone says ten minutes before acceptance.
    let told = 600 * SECOND_US;
    for (zone_known, zone_us) in [(true, 0), (false, 14 * HOUR_US)] {
        let apart = 2 * HOUR_US + zone_us;
        assert_eq!([told + apart, told - apart].map(|at| said(&taken(at, zone_known))), [GOOD; 2]);
        assert_eq!([told + apart + 1, told - apart - 1].map(|at| said(&taken(at, zone_known))), [STALE; 2]);
    }
}

#[test]
fn who_lets_the_phone_tell_an_earlier_time_for_more_distance_is_seen_by_the_camera() {
    let mut event = taken(600 * SECOND_US, true);
    event.stamp.captured_at = Some(Micros(event.header.accepted_at.0 - 9 * DAY_US));
    let judgement = judged(&event, Some(&vehicle("50001", Unit::Km)));
    assert_eq!((judgement.verdict, judgement.reason), STALE);
    assert_eq!(
        judgement.detail.as_deref(),
        Some("the time that the phone told and that of the camera are 12950 minutes apart")
    );
}
