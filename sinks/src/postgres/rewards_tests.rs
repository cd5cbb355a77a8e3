use proptest::prelude::*;
use schemas::events::{Event, LimitCharge};

use super::*;

fn example<E: Event>(text: &str) -> E {
    let mut example: Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(example["event"].take()).unwrap()
}

fn earned() -> RewardCalculated {
    example(include_str!("../../../schemas/examples/rewards.calculated/edge-capped.json"))
}

fn none() -> RewardGranted {
    example(include_str!("../../../schemas/examples/rewards.granted/edge-none.json"))
}

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[test]
fn a_calculation_brings_its_factors_and_the_records_own_time() {
    let reward = calculated(&earned()).unwrap().recorded(1_500).reward.unwrap();
    let columns = reward.calculated.unwrap();
    assert_eq!((columns.base, columns.bonus, columns.rate), (dec("20"), dec("0"), dec("0.01")));
    assert_eq!(columns.calculated_at.unwrap().timestamp_millis(), 1_500);
    let expected = json!({
        "tariff_version": "1", "vehicle_kind": "petrol", "rate": "0.01", "distance_km": "2500",
        "parts": [
            {"name": "base", "kind": "base", "factor": "0.01", "amount": "25"},
            {"name": "verification_level", "kind": "percent", "factor": "5", "amount": "1.25"},
            {"name": "upload_cap", "kind": "cap", "factor": "20", "amount": "-6.25"},
        ],
    });
    assert_eq!(columns.factors, expected);
    assert_eq!((reward.status, reward.revision, reward.granted), ("calculated", 0, None));
    // A bonus that the rules name has its name beside it.
    let mut named = earned();
    named.parts[1].label = Some("verified account".into());
    let columns = calculated(&named).unwrap().reward.unwrap().calculated.unwrap();
    assert_eq!(columns.factors["parts"][1]["label"], "verified account");
    assert_eq!(columns.factors["parts"][0].get("label"), None);
}

#[test]
fn a_grant_of_nothing_is_cancelled_with_its_reason_and_any_other_stays_calculated() {
    let reward = granted(&none()).unwrap().reward.unwrap();
    assert_eq!((reward.status, reward.revision, reward.granted), ("cancelled", 1, Some(Decimal::ZERO)));
    assert!(
        reward.grant_reason.unwrap().starts_with("over_limit: the daily budget of 30 B3TR had 0 B3TR left")
    );
    let whole = RewardGranted { granted: dec("1"), reason: None, detail: None, ..none() };
    let reward = granted(&whole).unwrap().recorded(1_500).reward.unwrap();
    assert_eq!((reward.status, reward.told(), reward.calculated), ("calculated", None, None));
}

#[test]
fn the_upload_that_a_reward_hangs_on_is_verified_and_dated_by_its_acceptance() {
    let event = earned();
    let upload = calculated(&event).unwrap().upload;
    assert_eq!((upload.status, upload.rank, upload.processed_at), ("verified", 2, None));
    assert_eq!(upload.updated_at, event.header.accepted_at.to_utc());
}

#[test]
fn amounts_off_the_grid_negative_or_beyond_their_column_are_refused_by_column() {
    let bad = |change: fn(&mut RewardCalculated)| {
        let mut event = earned();
        change(&mut event);
        calculated(&event).unwrap_err().to_string()
    };
    let texts = [
        bad(|event| event.base = dec("0.000000001")),
        bad(|event| event.bonus = dec("-0.1")),
        bad(|event| event.base = dec("10000000000")),
        bad(|event| event.rate = dec("0.00001")),
        bad(|event| event.distance_km = dec("100000000")),
    ];
    let expected = [
        "rewards.base_amount has more than 8 decimals",
        "rewards.bonus_amount is negative",
        "rewards.base_amount is not below 10000000000",
        "rewards.reward_rate has more than 4 decimals",
        "rewards.distance_traveled is not below 100,000,000",
    ];
    for (text, expected) in texts.iter().zip(expected) {
        assert!(text.ends_with(expected), "{text}");
    }
}

proptest! {
    #[test]
    fn any_amounts_make_rows_or_name_the_column_and_never_panic(
        mantissa in any::<i64>(), scale in 0_u32..28, amount in any::<i64>(),
    ) {
        let value = Decimal::new(mantissa, scale);
        let event = RewardCalculated { base: value, bonus: value, rate: value, distance_km: value, ..earned() };
        if let Err(bad) = calculated(&event) {
            prop_assert!(bad.column.starts_with("rewards."));
        }
        let charges: Vec<LimitCharge> = Vec::new();
        let event = RewardGranted { granted: Decimal::new(amount, scale), charges, ..none() };
        match granted(&event) {
            Ok(rows) => prop_assert!(rows.reward.unwrap().granted.unwrap().scale() <= 8),
            Err(bad) => prop_assert_eq!(bad.column, "rewards.granted_amount"),
        }
    }
}
