//! Rules of rewards on a real Postgres: applied once and in time, in force by acceptance, taken up by stages that run.

use std::time::Duration;

use processors::reward_rules::apply::{ApplyError, LEAD, apply};
use processors::reward_rules::{FIRST, RuleSource};
use runtime::fence::Guards;
use runtime::testing::{assignment, record};
use runtime::{Processor as _, Verdict as Outcome};
use rust_decimal::Decimal;
use schemas::events::{RewardCalculated, UploadDecided};
use schemas::ids::{EventId, Micros};
use schemas::topic::Topic;
use sqlx::types::chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::support::{NOW, examples};
use crate::{Database, TOPIC, decided, support, upload};

/// The first rules under another name, with another rate of petrol and another budget of a day.
fn version(name: &str) -> String {
    FIRST
        .replace("version = \"1\"", &format!("version = \"{name}\""))
        .replace("rate = \"0.01\"", "rate = \"0.5\"")
        .replace("daily = \"30\"", "daily = \"2\"")
}

async fn applied(database: &Database, name: &str, from: Micros) -> Result<(), ApplyError> {
    let mut tx = database.pool.begin().await.unwrap();
    apply(&mut tx, name, from, &version(name)).await?;
    tx.commit().await.unwrap();
    Ok(())
}

/// An hour from now by the database's clock.
async fn soon(database: &Database) -> Micros {
    let at: DateTime<Utc> = sqlx::query_scalar("select date_trunc('second', now()) + interval '1 hour'")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    Micros::from(at)
}

/// Rules that are looked up before each decision.
fn rules(database: &Database) -> RuleSource {
    RuleSource::tables(database.pool.clone()).renewed_after(Duration::ZERO)
}

#[tokio::test]
async fn a_version_is_applied_in_time_under_a_name_and_an_instant_of_its_own_and_never_changed() {
    let database = Database::new().await;
    let from = soon(&database).await;
    applied(&database, "2", from).await.unwrap();
    let refused = async |name: &str, from: Micros| applied(&database, name, from).await.unwrap_err();
    assert!(matches!(refused("2", Micros(from.0 + 1)).await, ApplyError::Known(_)));
    assert!(matches!(refused("1", Micros(from.0 + 1)).await, ApplyError::Known(_)), "the release's own");
    assert!(matches!(refused("3", from).await, ApplyError::Overlaps(of) if of == "2"));
    let lead = i64::try_from(LEAD.as_micros()).unwrap();
    let late = Micros(from.0 - 3_600_000_000 + lead / 2);
    assert!(matches!(refused("3", late).await, ApplyError::TooEarly { .. }));
    // Before the other one, and still in time.
    applied(&database, "3", Micros(from.0 - 60_000_000)).await.unwrap();
    for change in ["update reward_rules set document = ''", "delete from reward_rules"] {
        let error = sqlx::query(change).execute(&database.pool).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    database.drop().await;
}

#[tokio::test]
async fn a_version_decides_what_is_accepted_from_its_instant_in_stages_that_run_already() {
    let database = Database::with_drivers().await;
    let from = soon(&database).await;
    let dependencies = database.dependencies(NOW).0.with_rules(rules(&database));
    let stage = dependencies.reward_calculation();
    let example = examples(Topic::UploadsDecided).into_iter().find(|e| e.name == "normal-verified").unwrap();
    let calculated = async |at: Micros| {
        let mut event: UploadDecided = example.event();
        event.header.accepted_at = at;
        match stage.process(&support::record(event, 0)).await.unwrap() {
            Outcome::EmitWith(event, _) => (event.tariff_version, event.rate.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let (old, new) = (("1".to_owned(), "0.01".to_owned()), ("2".to_owned(), "0.5".to_owned()));
    assert_eq!(calculated(from).await, old, "nothing is applied yet");
    applied(&database, "2", from).await.unwrap();
    assert_eq!(calculated(from).await, new);
    assert_eq!(calculated(Micros(from.0 - 1)).await, old, "whenever it is worked out");

    let reward = |n: u128, at: i64| -> RewardCalculated {
        let mut event = crate::limits::reward(n, 1, 0, 25);
        event.header.accepted_at = Micros(at);
        event
    };
    let (mut worker, outbound) = database.limit_check("one", Guards::On, NOW);
    worker.decider = std::sync::Arc::new(dependencies.limit_check());
    // Another day, so that what was granted before leaves no mark.
    let rewards = [reward(1, from.0 - 3 * 86_400_000_000), reward(2, from.0)];
    let records = (0..).zip(&rewards).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment("rewards.calculated", records)).await.unwrap();
    let granted: Vec<_> = crate::limits::granted(&outbound.sent())
        .into_iter()
        .map(|event| (event.policy_version, event.granted))
        .collect();
    assert_eq!(granted, [("1".to_owned(), Decimal::from(25)), ("2".to_owned(), Decimal::from(2))]);
    database.drop().await;
}

#[tokio::test]
async fn a_version_that_this_release_cannot_read_holds_a_stage_up_rather_than_pays_by_another() {
    let database = Database::new().await;
    sqlx::query(
        "insert into reward_rules (version, in_force_from, document, applied_at)
         values ('9', now() + interval '1 hour', $1, now())",
    )
    .bind(version("9") + "\n[of_the_next_release]\n")
    .execute(&database.pool)
    .await
    .unwrap();
    let error = rules(&database).current().await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("version 9: line") && text.contains("of_the_next_release"), "{text}");
    database.drop().await;
}

#[tokio::test]
async fn the_facts_that_bonuses_are_for_are_stamped_with_the_decision_and_kept_for_the_next_batch() {
    let database = Database::new().await;
    let week = 7 * 24;
    let batches = [vec![(0, 50_310), (1, 50_400), (2, 50_410)], vec![(week, 50_500), (week + 1, 50_510)]];
    let mut facts = Vec::new();
    let mut offset = 0;
    for (n, uploads) in batches.iter().enumerate() {
        let (worker, outbound) = database.worker(&format!("owner {n}"), Guards::On, NOW);
        let mut records = Vec::new();
        for (hour, km) in uploads {
            let mut event = upload(*hour, *km);
            event.header.event_id = EventId(Uuid::from_u128(90_000 + hour));
            records.push(record(&event, offset).unwrap());
            offset += 1;
        }
        worker.run(&mut assignment(TOPIC, records)).await.unwrap();
        facts.extend(decided(&outbound.sent()).into_iter().map(|event| {
            let driver = event.driver.expect("a verified upload");
            (driver.streak_weeks, driver.first_of_week)
        }));
    }
    // The first one is the vehicle's baseline, and earns nothing.
    assert_eq!(facts, [(1, false), (1, true), (1, false), (2, true), (2, false)]);
    let (newest, verified, earning): (i32, i64, i64) =
        sqlx::query_as("select newest, verified, earning from driver_weeks")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert!(newest > 2_900, "{newest}: weeks since 1970");
    assert_eq!((verified, earning), (0b11, 0b11));
    database.drop().await;
}
