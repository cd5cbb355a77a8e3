//! What is asked for, the cut, the fold of grants, and the report.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use schemas::events::Root;
use schemas::ids::Micros;
use serde_json::{Value, json};
use sqlx::types::chrono::DateTime;
use uuid::Uuid;

use super::outcome::Outcome;
use super::promote::Act;
use super::report::{Difference, Summary};
use super::sheets::{Form, Sheet};
use super::spec::{Cut, Name, Step, Steps};
use crate::limit_check::grant::{Budgets, grant, recharge};
use crate::reward_rules::Rulebook;

#[test]
fn a_name_becomes_a_schema_and_a_prefix_and_nothing_else_is_one() {
    let name: Name = "march_2".parse().unwrap();
    assert_eq!(
        (name.schema().as_str(), name.topic_prefix("live.").as_str()),
        ("replay_march_2", "live.replay_march_2.")
    );
    for wrong in ["", "2march", "_march", "March", "a-b", "a;drop", "a b", "ä", &"a".repeat(41)] {
        assert!(wrong.parse::<Name>().is_err(), "{wrong}");
    }
}

#[test]
fn stages_follow_one_another_and_what_is_no_stage_is_told() {
    let steps = |text: &str| text.parse::<Steps>();
    assert_eq!(steps("limit_check, fraud_check,reward_calculation").unwrap(), Steps::default());
    let two = steps("reward_calculation,limit_check").unwrap();
    assert!(!two.run(Step::FraudCheck) && two.run(Step::RewardCalculation) && two.run(Step::LimitCheck));
    assert_eq!(two.to_string(), "reward_calculation,limit_check");
    assert!(steps("fraud_check,limit_check").unwrap_err().contains("reward_calculation stands between"));
    assert!(steps("chain_submission").unwrap_err().contains("chain_submission is no stage of a replay"));
}

#[test]
fn an_upload_belongs_to_the_window_by_where_it_stands_and_not_by_where_its_review_does() {
    let cut = Cut(BTreeMap::from([(0, (5, 8)), (1, (3, 3))]));
    let holds = |partition, offset| cut.holds(Some(Root { partition, offset }));
    assert_eq!([holds(0, 4), holds(0, 5), holds(0, 7), holds(0, 8)], [false, true, true, false]);
    assert!(!holds(1, 3) && !holds(2, 0) && !cut.holds(None));
}

#[test]
fn charging_what_a_grant_says_leaves_the_budgets_that_granting_it_leaves() {
    let mut event = crate::examples::reward();
    event.bonus = Decimal::ZERO;
    let (book, mut granted, mut followed) = (Rulebook::first(), Budgets::new(), Budgets::new());
    for n in 0..400_i64 {
        event.base = Decimal::new(700 + n * 37 % 900, 2);
        event.header.accepted_at.0 += 7_000_000_000 * (n % 5);
        let policy = &book.in_force(event.header.accepted_at).policy;
        let at = Micros(n);
        let made = grant(&event, &mut granted, policy, at).unwrap();
        if !made.amount.is_zero() {
            recharge(&mut followed, event.header.user_id, &made.charges, at);
        }
        assert_eq!(followed, granted, "after {n}");
    }
}

#[test]
fn a_report_tells_each_thing_that_differs_as_text_as_json_and_as_a_page_that_runs_nothing() {
    let verified = Outcome {
        verdict: Some("verified".to_owned()),
        distance_km: Some(Decimal::from(40)),
        granted: Some(Decimal::new(4, 1)),
        ..Outcome::default()
    };
    let more = Outcome { granted: Some(Decimal::new(8, 1)), ..verified.clone() };
    let difference = Difference {
        effect: "verdict:<script>alert('1')</script>".to_owned(),
        upload_id: Uuid::from_u128(1),
        user_id: Uuid::from_u128(2),
        accepted_at: DateTime::from_timestamp_micros(0).unwrap(),
        recorded: verified.clone(),
        promotion: Act::of(&verified, &more).told().to_owned(),
        replayed: more,
    };
    let summary = Summary {
        name: "march".to_owned(),
        from: Micros(0),
        to: Micros(1_000_000),
        stages: Steps::default().to_string(),
        rules_of_a_file: true,
        is_finished: true,
        accepted: 3,
        decided: 2,
        compared: 2,
        differences: 1,
        granted_recorded: Decimal::new(4, 1),
        granted_replayed: Decimal::new(8, 1),
        cancels: 0,
        cancels_granted: Decimal::ZERO,
        lowers: 0,
        lowers_by: Decimal::ZERO,
        raises: 1,
        raises_by: Decimal::new(4, 1),
    };
    let written = |form| {
        let mut sheet = Sheet::begin(form, Vec::new(), &summary).unwrap();
        sheet.add(&difference).unwrap();
        sheet.add(&difference).unwrap();
        String::from_utf8(sheet.end().unwrap()).unwrap()
    };
    let text = written(Form::Text);
    assert!(text.contains("3 uploads, 2 of them decided; 2 decisions compared: 1 differ"), "{text}");
    assert!(text.contains("granted B3TR: 0.4 recorded, 0.8 replayed, +0.4"), "{text}");
    assert!(text.contains("promoting it raises 1 rewards by 0.4 B3TR, "), "{text}");
    assert!(!text.contains("lowers") && !text.contains("cancels"), "{text}");
    assert!(text.contains("</script> granted: 0.4 -> 0.8\n"), "{text}");
    let json: Value = serde_json::from_str(&written(Form::Json)).unwrap();
    assert_eq!(json["differences"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["differences"][0]["replayed"]["granted"], json!("0.8"));
    let html = written(Form::Html);
    assert!(
        html.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;") && !html.contains("<script"),
        "{html}"
    );
    assert!(!html.contains("http://") && !html.contains("https://") && html.ends_with("</html>\n"), "{html}");
}

#[test]
fn promoting_moves_amounts_cancels_what_nothing_would_be_granted_for_any_more_and_changes_nothing_else() {
    let of = |granted: Option<i64>| Outcome {
        verdict: Some("verified".to_owned()),
        mileage: Some(Decimal::from(50_040)),
        distance_km: Some(Decimal::from(40)),
        granted: granted.map(Decimal::from),
        ..Outcome::default()
    };
    let act = |was: &Outcome, is: &Outcome| Act::of(was, is);
    assert_eq!(act(&of(Some(4)), &of(None)), Act::Cancel);
    assert_eq!(act(&of(Some(4)), &of(Some(0))), Act::Cancel);
    let nothing =
        |was: &Outcome, is: &Outcome, why: &str| assert!(act(was, is).told().contains(why), "{why}");
    assert_eq!(act(&of(Some(4)), &of(Some(3))), Act::Lower);
    assert_eq!(act(&of(Some(4)), &of(Some(5))), Act::Raise);
    assert_eq!(act(&of(None), &of(Some(5))), Act::Raise);
    nothing(&of(Some(0)), &of(None), "no amount moves");
    let rejected = Outcome { verdict: Some("rejected".to_owned()), ..Outcome::default() };
    nothing(&of(Some(4)), &rejected, "changed by a person");
    let lower = Outcome { mileage: Some(Decimal::from(50_030)), ..of(None) };
    nothing(&of(Some(4)), &lower, "milestream uploads correct");
}
