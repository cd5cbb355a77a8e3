//! An upload that an operator has ended: decided once, whichever of its end and its reading comes first, and nothing is earned by it.

use schemas::events::UploadAbandoned;
use schemas::ids::EventId;

use super::*;
use crate::fraud_check::input::{FraudInput, unread};
use crate::fraud_check::oracle::fold_all;

/// The end of the upload of a reading.
fn end_of(read: &OdometerRead) -> FraudInput {
    let (header, stamp) = (read.header.clone(), read.stamp.clone());
    let root = schemas::events::Root { partition: 0, offset: 1 };
    let said = ("an operator has ended it: the photo is lost".to_owned(), read.review.clone());
    FraudInput::Read(Box::new(unread(UploadAbandoned::of((header, stamp), said, ("1", Micros(0), root)))))
}

fn read(event: &OdometerRead) -> FraudInput {
    FraudInput::Read(Box::new(event.clone()))
}

#[test]
fn an_end_that_comes_first_is_the_verdict_and_the_reading_after_it_moves_nothing() {
    let (mut late, mut next) = (good(), good());
    reads(&mut late, &[("50310", Some(Unit::Km), "0.97")]);
    reads(&mut next, &[("50400", Some(Unit::Km), "0.97")]);
    next.header.upload_id = UploadId(Uuid::from_u128(7));
    next.header.accepted_at.0 += DAY_US;
    let said = fold_all(&[end_of(&late), read(&late), end_of(&late), read(&next)], &Rules::current());
    let verdict = &said[&format!("verdict:{}", late.header.upload_id)];
    assert_eq!(*verdict, (Verdict::Failed, Some(Reason::Abandoned), None, None));
    let first = &said[&format!("verdict:{}", next.header.upload_id)];
    assert_eq!((first.0, first.3), (Verdict::Verified, Some(Decimal::ZERO)), "the vehicle's first reading");
    assert_eq!(said.len(), 2);
}

#[test]
fn an_end_that_comes_after_the_reading_changes_nothing() {
    let event = good();
    let alone = fold_all(&[read(&event)], &Rules::current());
    assert_eq!(fold_all(&[read(&event), end_of(&event)], &Rules::current()), alone);
    assert_eq!(alone.values().next().unwrap().0, Verdict::Verified);
}

#[test]
fn what_a_person_had_decided_and_was_lost_ends_in_the_place_of_their_decision() {
    let mut event = good();
    event.review = Some(review::by_a_person(Some((dec("50310"), None))));
    let said = fold_all(&[end_of(&event), read(&event)], &Rules::current());
    let decided: Vec<_> = said.iter().map(|(effect, said)| (effect.as_str(), said.0, said.3)).collect();
    let effect = format!("review:{}", event.header.upload_id);
    assert_eq!(decided, [(effect.as_str(), Verdict::Failed, None)]);
}

#[test]
fn orders_to_end_one_upload_are_one_record_whichever_event_they_were_given_by() {
    let (read, mut graded) = (good(), good());
    graded.header.event_id = EventId(Uuid::from_u128(3));
    assert_eq!(end_of(&read).header().event_id, end_of(&graded).header().event_id);
    assert!(UploadAbandoned::is_id_of(end_of(&read).header().event_id, read.header.upload_id));
    assert!(!UploadAbandoned::is_id_of(read.header.event_id, read.header.upload_id));
}
