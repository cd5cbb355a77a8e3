use proptest::prelude::*;
use proptest::sample::subsequence;
use schemas::events::{
    Adjustment, OdometerRead, PayoutState, PayoutUpdated, RewardCalculated, RewardGranted, UploadDecided,
    UploadGraded, UploadHeader, UploadReceived, Verdict,
};
use schemas::ids::Micros;
use schemas::reason::Reason;
use schemas::testing::example;

use super::super::event::UploadEvent;
use super::super::uploads::rows_of;
use super::*;

/// Every event of an upload: read, reviewed, verified, paid what its grant has left of it after a wait, and worked out anew.
fn events() -> Vec<UploadEvent> {
    let mut events = granted();
    events.extend(adjusted(&events));
    events
}

/// Its calculation, its grant and its newest payment with another amount.
fn adjusted(events: &[UploadEvent]) -> Vec<UploadEvent> {
    let (mut calculations, mut grants, mut payments) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        match event.clone() {
            UploadEvent::Calculated(event) => calculations.push(event),
            UploadEvent::Granted(event) => grants.push(event),
            UploadEvent::Paid(event) => payments.push(event),
            _ => {}
        }
    }
    let (calculated, granted) = (calculations.remove(0), grants.remove(0));
    let paid = payments.pop().unwrap();
    let adjustment = Some(Adjustment {
        number: 1,
        promotion: "march".to_owned(),
        calculated_before: calculated.total(),
        granted_before: granted.granted,
        granted: Decimal::ONE,
        detail: None,
        adjusted_at: Micros(8),
    });
    let header = UploadHeader { occurred_at: Micros(paid.header.occurred_at.0 + 1), ..paid.header.clone() };
    let (revision, amount) = (paid.revision + 1, Decimal::ONE);
    let state = PayoutState::Waiting;
    vec![
        UploadEvent::Calculated(RewardCalculated {
            base: Decimal::ONE,
            adjustment: adjustment.clone(),
            ..calculated
        }),
        UploadEvent::Granted(RewardGranted { granted: Decimal::ONE, adjustment, ..granted }),
        UploadEvent::Paid(Box::new(PayoutUpdated {
            header,
            revision,
            state,
            amount,
            adjustment: Some(1),
            ..*paid
        })),
    ]
}

/// All that comes of an upload but an adjustment.
fn granted() -> Vec<UploadEvent> {
    let read: OdometerRead = example("normal-km");
    let (header, stamp) = (read.header.clone(), read.stamp.clone());
    let decided = |verdict, reason| {
        let event: UploadDecided = example("normal-verified");
        let reviewed = verdict == Verdict::Review;
        UploadEvent::Decided(UploadDecided {
            header: header.clone(),
            stamp: stamp.clone(),
            verdict,
            reason,
            detail: reason.map(|_| "a sentence".to_owned()),
            final_mileage: event.final_mileage.filter(|_| !reviewed),
            distance_km: event.distance_km.filter(|_| !reviewed),
            ..event
        })
    };
    let calculated: RewardCalculated = example("normal-basic");
    let grant: RewardGranted = example("edge-cut");
    let payout = |revision: i64, state, reason: Option<&str>| {
        let mut header = header.clone();
        header.occurred_at = Micros(header.occurred_at.0 + revision);
        UploadEvent::Paid(Box::new(PayoutUpdated {
            header,
            stamp: stamp.clone(),
            reward_id: grant.reward_id,
            revision,
            state,
            amount: grant.granted,
            wallet_id: None,
            claimed_at: None,
            reason: reason.map(str::to_owned),
            strikes: 0,
            max_retries: 3,
            adjustment: None,
            paid_at: Some(Micros(9)),
            transaction: None,
        }))
    };
    vec![
        UploadEvent::Received(UploadReceived { header: header.clone(), stamp: stamp.clone() }),
        UploadEvent::Graded(UploadGraded {
            header: header.clone(),
            stamp: stamp.clone(),
            image: read.image,
            quality: read.quality.clone(),
            fault: None,
            pixel_hash: None,
        }),
        UploadEvent::Read(Box::new(read)),
        decided(Verdict::Review, Some(Reason::LowConfidence)),
        decided(Verdict::Verified, None),
        UploadEvent::Calculated(RewardCalculated {
            header: header.clone(),
            stamp: stamp.clone(),
            reward_id: grant.reward_id,
            ..calculated
        }),
        payout(0, PayoutState::Waiting, Some("unclaimed: a sentence")),
        payout(1, PayoutState::Ready, None),
        payout(2, PayoutState::Quarantined, Some("reverted: a sentence")),
        payout(3, PayoutState::Paid, None),
        UploadEvent::Granted(RewardGranted { header: header.clone(), stamp, ..grant }),
    ]
}

fn rows(events: &[UploadEvent]) -> Vec<Rows> {
    events.iter().map(|event| rows_of(event, None).unwrap().unwrap()).collect()
}

fn folded(rows: &[Rows]) -> Folded {
    let mut upload = Folded::first(&rows[0]);
    rows.iter().for_each(|rows| upload.add(rows));
    upload
}

#[test]
fn what_a_grant_told_of_a_cut_is_told_beside_each_reason_of_its_payout_and_after_it() {
    let rows = rows(&events());
    let told = |payouts: usize| {
        let (before, grant) = (&rows[..6 + payouts], &rows[10..11]);
        folded(&[before, grant].concat()).reward.unwrap().told().unwrap()
    };
    let cut = told(0);
    assert!(cut.starts_with("over_limit: "), "{cut}");
    assert_eq!(told(1), format!("unclaimed: a sentence; {cut}"));
    assert_eq!(told(2), cut);
    assert_eq!(told(3), format!("reverted: a sentence; {cut}"));
    assert_eq!(told(4), cut);
}

proptest! {
    // The live sink's statements have the same property on PostgreSQL, in the tests of this crate, and a rebuild of the same events
    // leaves the same rows: together, statements and fold agree in every order.
    #[test]
    fn any_order_and_repetition_of_an_uploads_events_folds_to_the_same_rows(
        shuffled in subsequence(rows(&events()), 0..=events().len()).prop_flat_map(|repeated| {
            Just([rows(&events()), repeated].concat()).prop_shuffle()
        }),
    ) {
        prop_assert_eq!(folded(&shuffled), folded(&rows(&events())));
    }
}
