//! A driver's conduct: how many photos they send in a time, and how often they were turned down for fraud.

use super::*;
use crate::fraud_check::conduct::{Became, Conduct, MOST_UPLOADS};
use crate::fraud_check::facts::Before;

const HOUR_US: i64 = DAY_US / 24;

/// The n-th photo, accepted so long after the first.
fn photo(n: u128, after_us: i64) -> OdometerRead {
    let mut event = good();
    event.header.upload_id = UploadId(Uuid::from_u128(n));
    event.header.accepted_at.0 += after_us;
    event.stamp.captured_at = None;
    event
}

/// After decisions.
fn conduct<'a>(decisions: impl IntoIterator<Item = (&'a OdometerRead, Verdict, Option<Reason>)>) -> Conduct {
    decisions.into_iter().fold(Conduct::default(), |before, (event, verdict, reason)| {
        Conduct::after(Some(&before), &Became { event, verdict, reason })
    })
}

fn verified<'a>(photos: impl IntoIterator<Item = &'a OdometerRead>) -> Conduct {
    conduct(photos.into_iter().map(|event| (event, Verdict::Verified, None)))
}

fn said(event: &OdometerRead, conduct: &Conduct) -> Judgement {
    let last = vehicle("50001", Unit::Km);
    judge(event, Before { vehicle: Some(&last), conduct: Some(conduct) }, &Rules::current())
}

fn reason(event: &OdometerRead, conduct: &Conduct) -> Option<Reason> {
    said(event, conduct).reason
}

#[test]
fn the_seventeenth_photo_in_an_hour_and_the_twenty_fifth_in_a_day_go_to_a_person() {
    let minutes: Vec<_> = (0..16_i64).map(|n| photo(n.unsigned_abs().into(), n * HOUR_US / 60)).collect();
    let seventeenth = photo(99, 16 * HOUR_US / 60);
    assert_eq!(reason(&seventeenth, &verified(&minutes[1..])), None);
    let judgement = said(&seventeenth, &verified(&minutes));
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Review, Some(Reason::Velocity)));
    assert_eq!(
        judgement.detail.as_deref(),
        Some("the account's photo number 17 in an hour (at most 16) and 17 in a day (at most 24)")
    );
    assert_eq!(reason(&photo(99, HOUR_US), &verified(&minutes)), None, "the first is an hour ago");
    let hours: Vec<_> = (0..24_i64).map(|n| photo(n.unsigned_abs().into(), n * HOUR_US)).collect();
    assert_eq!(reason(&photo(99, 23 * HOUR_US + 1), &verified(&hours)), Some(Reason::Velocity));
    assert_eq!(reason(&photo(99, 24 * HOUR_US), &verified(&hours)), None, "the first is a day ago");
}

#[test]
fn what_cannot_be_read_what_failed_and_what_a_person_decides_are_no_photos_more() {
    let photos: Vec<_> = (0..30_u128)
        .map(|n| {
            let mut event = photo(n, 0);
            match n % 2 {
                0 => event.fault = Some(Fault { reason: Reason::Blurred, detail: "d".into() }),
                _ => event.review = Some(review::by_a_person(Some((dec("50310"), None)))),
            }
            event
        })
        .collect();
    assert_eq!(verified(&photos), Conduct::default());
    let failed = photo(1, 0);
    assert_eq!(conduct([(&failed, Verdict::Failed, Some(Reason::ProcessingFailed))]), Conduct::default());
}

#[test]
fn after_three_rejections_for_fraud_in_thirty_days_what_would_be_accepted_goes_to_a_person() {
    let photos = [photo(1, 0), photo(2, DAY_US), photo(3, 2 * DAY_US)];
    let rejected = |count: usize, reason| {
        conduct(photos[..count].iter().map(move |event| (event, Verdict::Rejected, Some(reason))))
    };
    let next = photo(9, 3 * DAY_US);
    for fraud in Reason::FRAUD {
        assert_eq!(said(&next, &rejected(2, fraud)).verdict, Verdict::Verified);
        let judgement = said(&next, &rejected(3, fraud));
        assert_eq!((judgement.verdict, judgement.reason), (Verdict::Review, Some(Reason::EarlierRejections)));
        let detail = "3 photos were turned down for fraud in the 30 days before";
        assert_eq!(judgement.detail.as_deref(), Some(detail));
        assert_eq!(judgement.signals["checks"]["standing"]["value"]["rejected_for_fraud"], 3);
    }
    let bad = rejected(3, Reason::Blurred);
    assert_eq!(said(&next, &bad).verdict, Verdict::Verified, "bad photos are no fraud");
    assert_eq!(said(&photo(9, 30 * DAY_US), &rejected(3, Reason::Rollback)).verdict, Verdict::Verified);
}

#[test]
fn of_a_young_account_one_rejection_is_enough() {
    let first = photo(1, 0);
    let once = conduct([(&first, Verdict::Rejected, Some(Reason::Rollback))]);
    let mut next = photo(2, HOUR_US);
    let accepted = next.header.accepted_at.0;
    next.stamp.account_created_at = Micros(accepted - 7 * DAY_US);
    assert_eq!(said(&next, &once).verdict, Verdict::Verified);
    next.stamp.account_created_at = Micros(accepted - 7 * DAY_US + 1);
    let judgement = said(&next, &once);
    let detail = "1 photos of a young account were turned down for fraud in the 30 days before";
    assert_eq!((judgement.verdict, judgement.detail.as_deref()), (Verdict::Review, Some(detail)));
    assert_eq!(said(&next, &Conduct::default()).verdict, Verdict::Verified, "being new is no fault");
}

#[test]
fn who_wins_an_appeal_was_no_fraud_and_whom_a_person_turns_down_for_one_was() {
    let photos = [photo(1, 0), photo(2, 1), photo(3, 2)];
    let refused = |event| (event, Verdict::Rejected, Some(Reason::Rollback));
    let mut appeal = photos[1].clone();
    appeal.review = Some(review::by_a_person(Some((dec("50310"), None))));
    let next = photo(9, DAY_US);
    let three = photos.iter().map(refused);
    let won = conduct(three.clone().chain([(&appeal, Verdict::Verified, None)]));
    assert_eq!(said(&next, &won).verdict, Verdict::Verified);
    let lost = conduct(three.chain([(&appeal, Verdict::Rejected, Some(Reason::EditedPhoto))]));
    assert_eq!(said(&next, &lost).signals["checks"]["standing"]["value"]["rejected_for_fraud"], 3);
}

proptest! {
    #![proptest_config(crate::properties::tried(1_024))]

    #[test]
    fn what_is_kept_is_bounded_and_counts_as_a_look_at_every_upload_would(
        uploads in proptest::collection::vec((0_i64..3_000, any::<bool>()), 1..200),
    ) {
        let (mut kept, mut all, mut frauds, mut now) = (Conduct::default(), Vec::new(), Vec::new(), 0);
        for (n, (minutes, is_fraud)) in uploads.into_iter().enumerate() {
            now += minutes * HOUR_US / 240;
            let event = photo(n as u128, now);
            let at = event.header.accepted_at;
            let within = |times: &[i64], span| times.iter().filter(|time| now - **time < span).count();
            prop_assert_eq!(kept.uploads_within(at, HOUR_US), within(&all, HOUR_US).min(MOST_UPLOADS));
            prop_assert_eq!(kept.uploads_within(at, DAY_US), within(&all, DAY_US).min(MOST_UPLOADS));
            prop_assert_eq!(kept.frauds_before(at), within(&frauds, 30 * DAY_US).min(16));
            let (verdict, reason) =
                if is_fraud { (Verdict::Rejected, Some(Reason::Rollback)) } else { (Verdict::Verified, None) };
            kept = Conduct::after(Some(&kept), &Became { event: &event, verdict, reason });
            all.push(now);
            if is_fraud {
                frauds.push(now);
            }
        }
    }
}
