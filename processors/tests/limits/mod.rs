//! `limit_check` on a real Postgres: what is granted is charged in the same transaction, once.

use std::sync::Arc;

use processors::limit_check::LimitCheck;
use processors::limit_check::state::LOAD;
use runtime::ManualClock;
use runtime::deciding::DecidingWorker;
use runtime::fence::Guards;
use runtime::source::{Assignment, RawRecord};
use runtime::stored::StoredRecord;
use runtime::testing::{MemoryOutbound, MemorySchemas, assignment, record, stage_context};
use runtime::worker::Halt;
use rust_decimal::Decimal;
use schemas::codec;
use schemas::events::{Adjustment, Event as _, RewardCalculated, RewardCancelled, RewardGranted};
use schemas::ids::{EventId, Micros, RewardId, UploadId, UserId};
use schemas::reason::Reason;
use schemas::topic::Topic;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::Database;
use crate::support::{NOW, examples};

const TOPIC: &str = "rewards.calculated";
const HOUR: i64 = 3_600_000_000;

/// The `n`-th reward of a user, accepted `hours` after midnight of Monday, 2026-03-02.
pub fn reward(n: u128, user: u128, hours: i64, b3tr: i64) -> RewardCalculated {
    let examples = examples(Topic::RewardsCalculated);
    let mut event: RewardCalculated =
        examples.iter().find(|example| example.name == "normal-basic").unwrap().event();
    event.header.event_id = EventId(Uuid::from_u128(n));
    event.header.upload_id = UploadId(Uuid::from_u128(1_000 + n));
    event.header.user_id = UserId(Uuid::from_u128(user));
    event.header.accepted_at = Micros(1_772_409_600_000_000 + hours * HOUR);
    event.reward_id = RewardId::of(event.header.upload_id);
    (event.base, event.bonus) = (b3tr.into(), Decimal::ZERO);
    event
}

/// Two users; the first has 20 + 20 B3TR on Monday, the second of them delivered twice, then Tuesday, then Sunday late.
fn batch() -> Vec<RawRecord> {
    let rewards = [
        reward(0, 1, 0, 20),
        reward(1, 1, 1, 20),
        reward(1, 1, 1, 20),
        reward(2, 2, 1, 5),
        reward(3, 1, 24, 3),
        reward(4, 1, -1, 4),
    ];
    (0..).zip(&rewards).map(|(offset, event)| record(event, offset).unwrap()).collect()
}

impl Database {
    pub async fn with_drivers() -> Self {
        let database = Self::new().await;
        for user in [1, 2] {
            let user = Uuid::from_u128(user);
            sqlx::query("insert into users (id) values ($1)")
                .bind(user)
                .execute(&database.pool)
                .await
                .unwrap();
        }
        database
    }

    pub fn limit_check(
        &self,
        owner: &str,
        guards: Guards,
        at: Micros,
    ) -> (DecidingWorker<LimitCheck>, Arc<MemoryOutbound>) {
        let outbound = Arc::new(MemoryOutbound::default());
        let mut context = stage_context("limit_check", outbound.clone()).unwrap();
        context.clock = Arc::new(ManualClock::at(at));
        let worker = DecidingWorker {
            decider: Arc::new(self.dependencies(at).0.limit_check()),
            context,
            pool: self.pool.clone(),
            output: "rewards.granted".into(),
            output_schema: MemorySchemas::id_of::<RewardGranted>(),
            owner: owner.into(),
            guards,
        };
        (worker, outbound)
    }

    /// Every row that the stage owns.
    pub async fn limits(&self) -> Value {
        sqlx::query_scalar(
            "select jsonb_build_object(
                'decisions', (select jsonb_agg(to_jsonb(d) order by d.record_offset) from decisions d),
                'limits', (select jsonb_agg(to_jsonb(l) order by l.user_id, l.limit_type, l.period_start) from reward_limits l),
                'charges', (select jsonb_agg(to_jsonb(c) order by c.reward_id, c.limit_type) from limit_charges c),
                'upto', (select jsonb_agg(s.decided_upto) from stage_offsets s))",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// Budgets whose sum of charges is another than what they hold: there must be none.
    pub async fn unbalanced(&self) -> i64 {
        sqlx::query_scalar(
            "select count(*) from reward_limits l where current_amount is distinct from
                (select coalesce(sum(amount), 0) from limit_charges c
                 where (c.user_id, c.limit_type, c.period_start) = (l.user_id, l.limit_type, l.period_start)
                   and not c.refunded)",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }
}

pub fn granted(sent: &[StoredRecord]) -> Vec<RewardGranted> {
    sent.iter()
        .map(|record| {
            assert_eq!(record.topic, "rewards.granted");
            let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
            codec::decode(RewardGranted::schema(), id, datum).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn grants_are_charged_with_their_decision_a_repeat_is_dropped_and_budgets_hold_the_sum_of_their_charges()
 {
    let database = Database::with_drivers().await;
    let (worker, outbound) = database.limit_check("one", Guards::On, NOW);
    let mut lane = assignment(TOPIC, batch());
    worker.run(&mut lane).await.unwrap();
    assert_eq!(lane.lane.frontier(), 6);
    let published: Vec<_> =
        granted(&outbound.sent()).iter().map(|event| (event.granted.to_string(), event.reason)).collect();
    let whole = |amount: &str| (amount.to_owned(), None);
    assert_eq!(
        published,
        [whole("20"), ("10".into(), Some(Reason::OverLimit)), whole("5"), whole("3"), whole("4")]
    );
    assert_eq!(database.unbalanced().await, 0);
    let state = database.limits().await;
    assert_eq!(state["decisions"][2]["outcome"], "drop");
    assert_eq!(state["decisions"][0]["effect_id"], format!("grant:{}", reward(0, 1, 0, 20).reward_id));
    assert_eq!(state["charges"].as_array().unwrap().len(), 15);
    let rows = |kind: &str| -> Vec<Value> {
        let rows = state["limits"].as_array().unwrap().iter();
        let of =
            rows.filter(|row| row["limit_type"] == kind && row["user_id"] == Uuid::from_u128(1).to_string());
        of.map(|row| json!([row["period_start"], row["current_amount"], row["is_active"]])).collect()
    };
    let expected = |rows: &[(&str, f64, bool)]| -> Vec<Value> {
        rows.iter()
            .map(|(day, current, active)| json!([format!("{day}T00:00:00+00:00"), current, active]))
            .collect()
    };
    let daily = [("2026-03-01", 4.0, false), ("2026-03-02", 30.0, false), ("2026-03-03", 3.0, true)];
    assert_eq!(rows("daily"), expected(&daily));
    assert_eq!(rows("weekly"), expected(&[("2026-02-23", 4.0, false), ("2026-03-02", 33.0, true)]));
    assert_eq!(rows("monthly"), expected(&[("2026-03-01", 37.0, true)]));
    // The next batch goes on from the stored budgets.
    let mut lane = assignment(
        TOPIC,
        vec![record(&reward(5, 1, 2, 1), 6).unwrap(), record(&reward(6, 1, 25, 30), 7).unwrap()],
    );
    let (worker, outbound) = database.limit_check("two", Guards::On, NOW);
    worker.run(&mut lane).await.unwrap();
    let amounts: Vec<_> = granted(&outbound.sent()).iter().map(|event| event.granted).collect();
    assert_eq!(amounts, [Decimal::ZERO, 27.into()], "Monday is used up, Tuesday has 27 left");
    assert_eq!(database.unbalanced().await, 0);
    database.drop().await;
}

#[tokio::test]
async fn one_batch_and_one_record_per_batch_leave_the_same_budgets_and_publish_the_same() {
    let whole = Database::with_drivers().await;
    let (worker, published) = whole.limit_check("one", Guards::On, NOW);
    worker.run(&mut assignment(TOPIC, batch())).await.unwrap();
    let single = Database::with_drivers().await;
    let mut one_by_one = Vec::new();
    for record in batch() {
        let (worker, published) = single.limit_check("one", Guards::On, NOW);
        worker.run(&mut assignment(TOPIC, vec![record])).await.unwrap();
        one_by_one.extend(published.sent());
    }
    assert_eq!(published.sent(), one_by_one);
    assert_eq!(whole.limits().await, single.limits().await);
    whole.drop().await;
    single.drop().await;
}

#[tokio::test]
async fn a_grant_is_published_again_byte_for_byte_and_charged_no_second_time() {
    let database = Database::with_drivers().await;
    let (worker, first) = database.limit_check("one", Guards::On, NOW);
    worker.run(&mut assignment(TOPIC, batch())).await.unwrap();
    let before = database.limits().await;
    // The offset was not committed: the next owner, an hour later, is given the same records.
    let (worker, second) = database.limit_check("two", Guards::On, Micros(NOW.0 + HOUR));
    worker.run(&mut assignment(TOPIC, batch())).await.unwrap();
    assert_eq!(first.sent(), second.sent());
    assert_eq!(before, database.limits().await);
    database.drop().await;
}

#[tokio::test]
async fn a_zombie_grants_nothing_and_charges_nothing() {
    let database = Database::with_drivers().await;
    let (sleeper, late) = database.limit_check("sleeper", Guards::On, NOW);
    let (wake, records) = mpsc::channel(8);
    let held = Assignment { records: records.into(), ..assignment(TOPIC, Vec::new()) };
    let sleeping = tokio::spawn(async move {
        let mut held = held;
        sleeper.run(&mut held).await
    });
    let epoch = "select epoch from stage_offsets where stage = 'limit_check'";
    while sqlx::query_scalar::<_, i64>(epoch).fetch_optional(&database.pool).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let (successor, published) = database.limit_check("successor", Guards::On, NOW);
    successor.run(&mut assignment(TOPIC, batch())).await.unwrap();
    let before = database.limits().await;
    for record in batch() {
        wake.send(record).await.unwrap();
    }
    drop(wake);
    assert!(matches!(sleeping.await.unwrap(), Err(Halt::Fenced)));
    assert_eq!((published.sent().len(), late.sent().len()), (5, 0));
    assert_eq!(before, database.limits().await);
    database.drop().await;
}

/// Users whose budgets fill the table: 300,000 rows, which a scan takes a tenth of a second for.
const USERS: i32 = 100_000;

#[tokio::test]
async fn loading_a_batchs_budgets_scans_no_table_however_many_budgets_there_are() {
    let database = Database::new().await;
    sqlx::query("insert into users (id) select gen_random_uuid() from generate_series(1, $1)")
        .bind(USERS)
        .execute(&database.pool)
        .await
        .unwrap();
    sqlx::raw_sql(
        "insert into reward_limits (id, user_id, limit_type, period_start, period_end, limit_amount, current_amount, is_active,
            created_at, updated_at)
         select gen_random_uuid(), u.id, t.label, now(), now() + interval '1 day', 1, 0, true, now(), now()
         from users u, unnest(enum_range(null::reward_limits_limit_type)) as t (label);
         analyze reward_limits",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let users: Vec<Uuid> =
        sqlx::query_scalar("select id from users limit 200").fetch_all(&database.pool).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("explain {LOAD}")))
        .bind(&users)
        .bind(vec!["daily"; users.len()])
        .bind(vec![NOW.to_utc(); users.len()])
        .fetch_all(&database.pool)
        .await
        .unwrap();
    let plan = plan.join("\n");
    assert!(!plan.contains("Seq Scan on reward_limits"), "{plan}");
    assert!(plan.matches("Index").count() >= 2, "{plan}");
}

fn cancellation(event: &RewardCalculated) -> RewardCancelled {
    let mut header = event.header.clone();
    header.event_id = EventId(Uuid::from_u128(9_000 + event.reward_id.0.as_u128() % 1_000));
    RewardCancelled { header, reward_id: event.reward_id, granted: event.total(), reason: "lost".to_owned() }
}

#[tokio::test]
async fn a_cancelled_reward_is_refunded_once_to_its_periods_whichever_record_is_first() {
    let database = Database::with_drivers().await;
    let (worker, outbound) = database.limit_check("one", Guards::On, NOW);
    let (charged, early) = (reward(0, 1, 0, 20), reward(5, 2, 0, 7));
    let same_batch = reward(6, 1, 2, 9);
    let records = [
        record(&charged, 0),
        record(&cancellation(&early), 1),
        record(&same_batch, 2),
        record(&cancellation(&same_batch), 3),
    ];
    worker.run(&mut assignment(TOPIC, records.into_iter().map(Result::unwrap).collect())).await.unwrap();
    let later = [
        record(&cancellation(&charged), 4),
        record(&cancellation(&charged), 5),
        record(&early, 6),
        record(&reward(7, 1, 3, 30), 7),
    ];
    worker.run(&mut assignment(TOPIC, later.into_iter().map(Result::unwrap).collect())).await.unwrap();
    let published: Vec<String> =
        granted(&outbound.sent()).iter().map(|event| event.granted.to_string()).collect();
    assert_eq!(published, ["20", "9", "7", "30"], "the whole day is there again");
    assert_eq!(database.unbalanced().await, 0);
    let state = database.limits().await;
    let open: Vec<&Value> =
        state["charges"].as_array().unwrap().iter().filter(|c| c["refunded"] == false).collect();
    assert_eq!(open.len(), 3, "of the last one alone: {open:?}");
    let effects: Vec<&Value> =
        state["decisions"].as_array().unwrap().iter().map(|d| &d["effect_id"]).collect();
    assert_eq!(*effects[4], json!(format!("refund:{}", charged.reward_id)));
    let refunds: i64 =
        sqlx::query_scalar("select count(*) from limit_refunds").fetch_one(&database.pool).await.unwrap();
    assert_eq!(refunds, 3);
    database.drop().await;
}

/// A reward that is worked out anew.
fn adjusted(event: &RewardCalculated, number: i32, (before, granted): (i64, i64)) -> RewardCalculated {
    let mut again = event.clone();
    again.header.event_id = EventId(Uuid::from_u128(8_000 + u128::from(number.unsigned_abs())));
    (again.base, again.bonus) = (granted.into(), Decimal::ZERO);
    again.adjustment = Some(Adjustment {
        number,
        promotion: "march".to_owned(),
        calculated_before: event.total(),
        granted_before: before.into(),
        granted: granted.into(),
        detail: None,
        adjusted_at: NOW,
    });
    again
}

#[tokio::test]
async fn an_adjusted_reward_is_charged_the_difference_once_and_a_raise_that_a_budget_does_not_hold_is_refused()
 {
    let database = Database::with_drivers().await;
    let (worker, outbound) = database.limit_check("one", Guards::On, NOW);
    let (first, second) = (reward(0, 1, 0, 20), reward(6, 1, 2, 9));
    let lowered = adjusted(&first, 1, (20, 8));
    let raised = adjusted(&second, 2, (9, 15));
    let records = [
        record(&first, 0),
        record(&second, 1),
        record(&lowered, 2),
        // Published again it has another id, and the same effect.
        record(&RewardCalculated { header: cancellation(&first).header, ..lowered.clone() }, 3),
    ];
    worker.run(&mut assignment(TOPIC, records.into_iter().map(Result::unwrap).collect())).await.unwrap();
    let later = [
        record(&raised, 4),
        record(&adjusted(&first, 3, (8, 16)), 5),
        record(&cancellation(&second), 6),
        record(&adjusted(&second, 4, (15, 16)), 7),
        record(&reward(7, 1, 3, 30), 8),
    ];
    worker.run(&mut assignment(TOPIC, later.into_iter().map(Result::unwrap).collect())).await.unwrap();
    let published: Vec<_> =
        granted(&outbound.sent()).iter().map(|event| (event.granted.to_string(), event.reason)).collect();
    let whole = |amount: &str| (amount.to_owned(), None);
    assert_eq!(
        published,
        [
            whole("20"),
            whole("9"),
            whole("8"),
            whole("15"),
            // 8 and 15 of 30 are charged.
            ("8".to_owned(), Some(Reason::OverLimit)),
            ("15".to_owned(), Some(Reason::Cancelled)),
            ("22".to_owned(), Some(Reason::OverLimit)),
        ]
    );
    assert_eq!(database.unbalanced().await, 0);
    let state = database.limits().await;
    let of = |event: &RewardCalculated| -> Vec<(f64, bool)> {
        let id = event.reward_id.to_string();
        let rows = state["charges"].as_array().unwrap().iter().filter(|row| row["reward_id"] == id);
        rows.map(|row| (row["amount"].as_f64().unwrap(), row["refunded"].as_bool().unwrap())).collect()
    };
    assert_eq!((of(&first), of(&second)), (vec![(8.0, false); 3], vec![(15.0, true); 3]));
    database.drop().await;
}
