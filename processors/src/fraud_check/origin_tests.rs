//! Where a photo was sent from: many accounts on a device, or many new ones at an address, are looked at by a person, and never refused
//! for.

use super::*;
use schemas::events::OriginFacts;

/// A good photo from a device and an address with so many accounts.
fn from(accounts_of_device: Option<i32>, young_accounts_of_address: Option<i32>) -> OdometerRead {
    let mut event = good();
    event.stamp.origin = Some(OriginFacts { accounts_of_device, young_accounts_of_address });
    event
}

fn said(event: &OdometerRead) -> Judgement {
    judged(event, Some(&vehicle("50001", Unit::Km)))
}

fn outcome(event: &OdometerRead) -> (Verdict, Option<Reason>) {
    let judgement = said(event);
    (judgement.verdict, judgement.reason)
}

const GOOD: (Verdict, Option<Reason>) = (Verdict::Verified, None);

#[test]
fn the_fourth_account_of_a_device_goes_to_a_person_who_reads_how_many_there_are() {
    assert_eq!(outcome(&from(Some(3), None)), GOOD, "a family shares a phone");
    let judgement = said(&from(Some(4), Some(1)));
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Review, Some(Reason::SharedDevice)));
    let detail = "4 accounts sent photos from this device in 30 days, at most 3 are usual";
    assert_eq!(judgement.detail.as_deref(), Some(detail));
    let check = &judgement.signals["checks"]["accounts_of_device"];
    assert_eq!((&check["value"], &check["threshold"], &check["weight"]), (&4.into(), &3.into(), &0.5.into()));
}

#[test]
fn the_eleventh_new_account_of_an_address_in_a_day_goes_to_a_person() {
    assert_eq!(outcome(&from(None, Some(10))), GOOD, "colleagues begin together");
    let judgement = said(&from(None, Some(11)));
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Review, Some(Reason::SharedAddress)));
    let detail =
        "11 accounts of their first week sent photos from this network in a day, at most 10 are usual";
    assert_eq!(judgement.detail.as_deref(), Some(detail));
}

#[test]
fn where_nothing_was_counted_nothing_is_said() {
    for event in [good(), from(None, None)] {
        let judgement = said(&event);
        assert_eq!((judgement.verdict, judgement.reason), GOOD);
        let checks = judgement.signals["checks"].as_object().unwrap();
        assert!(
            ["accounts_of_device", "young_accounts_of_address"]
                .iter()
                .all(|name| !checks.contains_key(*name))
        );
    }
}

#[test]
fn a_shared_origin_refuses_nobody_and_excuses_nothing() {
    let mut event = from(Some(64), Some(64));
    assert_eq!(outcome(&event).0, Verdict::Review);
    let back = judged(&event, Some(&vehicle("60000", Unit::Km)));
    assert_eq!((back.verdict, back.reason), (Verdict::Rejected, Some(Reason::Rollback)));
    event.review = Some(review::by_a_person(Some((dec("50310"), None))));
    assert_eq!(outcome(&event), GOOD, "a person has looked past it");
}
