//! Another wallet takes the place of the primary one after a cooling time.

use ingest::replace_wallets;
use runtime::clock::{Clock as _, SystemClock};
use runtime::timers::Ran;
use schemas::ids::Micros;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::account::{add, audited, path, wallets};
use crate::signing_in::{access, bench_with, signed_in, wallet};
use crate::support::{Bench, Form, Response, SCHEMAS, jpeg};

const HOUR_US: i64 = 3_600_000_000;

/// Some hours from now.
fn later(hours: i64) -> Micros {
    Micros(SystemClock.now().0 + hours * HOUR_US)
}

/// Replaces what is due some hours from now; how many.
async fn replace(pool: &PgPool, hours: i64) -> u64 {
    let ran = replace_wallets(pool, SCHEMAS().account_changed, later(hours)).await.unwrap();
    assert_eq!(ran.failed, 0);
    ran.done
}

/// A driver whose first wallet is paid to, and the ids of two more.
struct Driver {
    bench: Bench,
    tokens: Value,
    first: Value,
    others: [Value; 2],
}

impl Driver {
    async fn new() -> Self {
        let (bench, own) = (bench_with(|_| {}).await, wallet());
        let tokens = signed_in(&bench, &own).await;
        let first = bench.get("/v1/wallets", access(&tokens)).await.json()["items"][0].clone();
        assert_eq!(
            (&first["is_primary"], &first["primary_from"]),
            (&json!(true), &json!(null)),
            "the first at once"
        );
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(add(&bench, access(&tokens), &wallet()).await.json());
        }
        Self { bench, tokens, first, others: others.try_into().unwrap() }
    }

    async fn change(&self, wallet: &Value, primary: bool) -> Response {
        self.bench.json("PATCH", &path(wallet), access(&self.tokens), &json!({ "is_primary": primary })).await
    }

    /// From when on each wallet is to be paid to, newest first.
    async fn waiting(&self) -> Vec<Value> {
        let list = self.bench.get("/v1/wallets", access(&self.tokens)).await.json();
        list["items"].as_array().unwrap().iter().map(|wallet| wallet["primary_from"].clone()).collect()
    }

    async fn primary(&self) -> String {
        let all = wallets(&self.bench, access(&self.tokens)).await;
        let shown = self.bench.get("/v1/me", access(&self.tokens)).await.json()["wallet_address"].clone();
        let [primary] = &all.iter().filter(|(_, primary)| *primary).collect::<Vec<_>>()[..] else {
            panic!("one is primary: {all:?}")
        };
        assert_eq!(shown, primary.0);
        primary.0.clone()
    }

    /// The wallet that the next photo's reward goes to.
    async fn stamped(&self, photo: u32) -> Option<Uuid> {
        let sent = self.bench.post(access(&self.tokens), &Form::photo(&jpeg(photo))).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        self.bench.kafka.events().last().unwrap().stamp.wallet_id
    }
}

fn id(wallet: &Value) -> Option<Uuid> {
    wallet["wallet_id"].as_str().unwrap().parse().ok()
}

#[tokio::test]
async fn another_wallet_is_paid_to_when_its_cooling_time_is_over_and_its_owner_is_told_at_once() {
    let driver = Driver::new().await;
    let (bench, second) = (&driver.bench, &driver.others[0]);
    let asked = driver.change(second, true).await;
    assert_eq!((asked.status, &asked.json()["is_primary"]), (200, &json!(false)), "{asked:?}");
    let from: chrono::DateTime<chrono::Utc> = asked.json()["primary_from"].as_str().unwrap().parse().unwrap();
    let day = from - SystemClock.now().to_utc();
    assert!((86_300..=86_400).contains(&day.num_seconds()), "{day}");
    assert_eq!(driver.change(second, true).await.body, asked.body, "again begins no new day");
    assert_eq!(driver.primary().await, driver.first["address"]);
    assert_eq!(driver.stamped(1).await, id(&driver.first));
    bench.relay().await;
    let told = bench.kafka.documents("security_events");
    let [told] = &told[..] else { panic!("told once: {told:?}") };
    assert_eq!(
        (&told["event_type"], &told["severity"], &told["user_id"], &told["ip_address"]),
        (&json!("wallet_change"), &json!("medium"), &driver.tokens["user_id"], &json!("127.0.0.1"))
    );

    assert_eq!(replace(&bench.pool, 23).await, 0);
    assert_eq!(driver.primary().await, driver.first["address"]);
    assert_eq!(replace(&bench.pool, 24).await, 1);
    assert_eq!(driver.primary().await, second["address"]);
    assert_eq!(driver.stamped(2).await, id(second));
    assert_eq!(driver.waiting().await, [json!(null), json!(null), json!(null)]);
    assert_eq!(replace(&bench.pool, 48).await, 0, "once");
    let audits: Vec<Value> = audited(bench)
        .await
        .into_iter()
        .map(|(action, _, after)| json!([action, after["requested"]]))
        .collect();
    assert_eq!(audits.last(), Some(&json!(["wallet.set_primary", second["wallet_id"]])));
    let done: Value = sqlx::query_scalar(
        "select action_details -> 'after' -> 'primary' from system_audit_logs where action_details ->> 'via' = 'timers'",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap();
    assert_eq!(done, second["wallet_id"]);
}

#[tokio::test]
async fn a_change_is_taken_back_on_either_wallet_or_by_removing_the_new_one_and_a_later_one_takes_its_place()
{
    let driver = Driver::new().await;
    let ([second, third], pool) = (&driver.others, &driver.bench.pool);
    driver.change(second, false).await.assert_problem(422, "invalid_field");
    for taken_back in [(second, false), (&driver.first, true)] {
        assert_eq!(driver.change(second, true).await.status, 200);
        let back = driver.change(taken_back.0, taken_back.1).await;
        assert_eq!((back.status, &back.json()["primary_from"]), (200, &json!(null)), "{back:?}");
        assert_eq!(replace(pool, 48).await, 0);
    }
    assert_eq!(driver.change(second, true).await.status, 200);
    let token = access(&driver.tokens);
    let remove = async |wallet: &Value| driver.bench.json("DELETE", &path(wallet), token, &json!({})).await;
    remove(&driver.first).await.assert_problem(409, "wallet_is_primary");
    // Newest first: the third takes the second's place.
    let first_asked = driver.waiting().await;
    assert_eq!((&first_asked[0], &first_asked[2]), (&json!(null), &json!(null)));
    assert_eq!(driver.change(third, true).await.status, 200);
    let waiting = driver.waiting().await;
    assert_eq!(waiting[1], json!(null));
    assert!(waiting[0].as_str() > first_asked[1].as_str(), "its day begins anew: {waiting:?}");
    assert_eq!(remove(third).await.status, 204);
    assert_eq!(replace(pool, 48).await, 0);
    assert_eq!(driver.primary().await, driver.first["address"]);
}

#[tokio::test]
async fn a_change_lapses_where_the_account_is_locked_or_held_when_it_is_due() {
    let driver = Driver::new().await;
    let pool = &driver.bench.pool;
    for (shut, open) in [
        ("update users set is_active = false", "update users set is_active = true"),
        ("update users set held_at = now()", "update users set held_at = null"),
    ] {
        assert_eq!(driver.change(&driver.others[0], true).await.status, 200);
        sqlx::query(shut).execute(pool).await.unwrap();
        assert_eq!(replace(pool, 25).await, 0);
        sqlx::query(open).execute(pool).await.unwrap();
        assert_eq!(replace(pool, 48).await, 0);
        assert_eq!(driver.primary().await, driver.first["address"]);
    }
}

#[tokio::test]
async fn changes_that_cannot_be_made_keep_no_other_waiting_however_many_they_are() {
    let driver = Driver::new().await;
    let (pool, second) = (&driver.bench.pool, &driver.others[0]);
    assert_eq!(driver.change(second, true).await.status, 200);
    // As a row of the audit log that is there already would: nothing of the change may be kept then.
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$ begin
           if exists (select from users where id::text = new.action_details ->> 'target' and email like 'refused%') then
             raise exception 'refused'; end if;
           return new; end $$;
         create trigger refuse before insert on system_audit_logs for each row execute function refuse();
         insert into users (id, email) select gen_random_uuid(), 'refused' || n from generate_series(1, 120) n;
         insert into user_wallets (id, user_id, wallet_address, wallet_type, network, verified_at)
         select id, id, '0x' || lpad(replace(id::text, '-', ''), 40, '0'), 'vechain', 'testnet', now() from users where email like 'refused%';
         insert into wallet_changes (user_id, wallet_id, requested_at, due_at)
         select u.id, u.id, c.requested_at, c.due_at - interval '1 hour' from wallet_changes c, users u
         where u.email like 'refused%';",
    )
    .execute(pool)
    .await
    .unwrap();
    for done in [1, 0] {
        let ran = replace_wallets(pool, SCHEMAS().account_changed, later(25)).await.unwrap();
        assert_eq!(ran, Ran { done, failed: 120 });
    }
    assert_eq!(driver.primary().await, second["address"]);
    let left: i64 = sqlx::query_scalar("select count(*) from wallet_changes").fetch_one(pool).await.unwrap();
    assert_eq!(left, 120, "what failed is as it was");
}
