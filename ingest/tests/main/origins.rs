//! How many accounts send photos from one device and from one address: counted over all gateways, and nothing else of them in any record.

use std::time::Duration;

use ingest::GatewayConfig;
use ingest::config::{ForwardedBy, Proxies};
use ingest::erasure::erase;
use runtime::clock::{Clock as _, SystemClock};
use runtime::testing::{MemorySchemas, tell_scans};
use schemas::events::{OdometerRead, OriginFacts, UserErased};
use schemas::ids::UserId;

use crate::support::{Bench, Form, Response, jpeg};

const DEVICE: &str = "x-device-id: planted-device\r\n";
const ADDRESS: &str = "x-forwarded-for: 203.0.113.9\r\n";

pub(crate) fn behind_a_proxy(config: &mut GatewayConfig) {
    config.trusted_proxies = Proxies::parse(&["127.0.0.0/8".to_owned()], ForwardedBy::default()).unwrap();
}

/// Rows of the table.
async fn rows(bench: &Bench) -> i64 {
    sqlx::query_scalar("select count(*) from upload_origins").fetch_one(&bench.pool).await.unwrap()
}

async fn execute(bench: &Bench, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&bench.pool).await.unwrap();
}

/// Makes an account eight days old.
pub(crate) async fn grow_old(bench: &Bench, user: UserId) {
    let sql = "update users set created_at = created_at - interval '8 days' where id = $1";
    sqlx::query(sql).bind(user.0).execute(&bench.pool).await.unwrap();
}

/// Posts a photo of its own, and gives what was counted for it.
async fn counted(bench: &Bench, token: &str, seed: u32, headers: &str) -> Option<OriginFacts> {
    let response: Response = bench.post_with(token, &Form::photo(&jpeg(seed)), headers).await;
    assert_eq!(response.status, 202, "{response:?}");
    bench.kafka.events().pop().unwrap().stamp.origin
}

fn of_device(accounts: i32) -> Option<OriginFacts> {
    Some(OriginFacts { accounts_of_device: Some(accounts), young_accounts_of_address: None })
}

fn of_address(accounts: i32) -> Option<OriginFacts> {
    Some(OriginFacts { accounts_of_device: None, young_accounts_of_address: Some(accounts) })
}

#[tokio::test]
async fn accounts_of_a_device_are_counted_over_gateways_and_a_photo_more_is_no_account_more() {
    let first = Bench::start().await;
    let second = first.another(|_| {}).await;
    let [(_, one), (_, two)] = [first.driver().await, first.driver().await];
    assert_eq!(counted(&first, &one, 1, DEVICE).await, of_device(1));
    assert_eq!(counted(&second, &two, 2, DEVICE).await, of_device(2));
    assert_eq!(counted(&second, &one, 3, DEVICE).await, of_device(2));
    assert_eq!(counted(&first, &two, 4, "x-device-id: another\r\n").await, of_device(1));
    assert_eq!(counted(&first, &two, 5, "").await, None, "no device, and a private address");
    // A month later the other account has gone.
    execute(&first, "update upload_origins set seen_at = seen_at - interval '31 days'").await;
    assert_eq!(counted(&first, &one, 6, DEVICE).await, of_device(1));
}

#[tokio::test]
async fn of_an_address_the_young_accounts_of_a_day_are_counted_and_an_old_account_leaves_no_row() {
    let bench = Bench::start_with(behind_a_proxy).await;
    let mut drivers = Vec::new();
    for _ in 0..4 {
        drivers.push(bench.driver().await);
    }
    grow_old(&bench, drivers[3].0).await;
    assert_eq!(counted(&bench, &drivers[3].1, 1, ADDRESS).await, None, "an old account");
    assert_eq!(rows(&bench).await, 0);
    for (n, seed) in [(1, 2), (2, 3), (3, 4)] {
        let (_, token) = &drivers[n - 1];
        assert_eq!(counted(&bench, token, seed, ADDRESS).await, of_address(i32::try_from(n).unwrap()));
    }
    let last = &drivers[2].1;
    let v6 = |address: &str| format!("x-forwarded-for: {address}\r\n");
    assert_eq!(counted(&bench, last, 5, &v6("2001:db8::1")).await, of_address(1), "another address");
    assert_eq!(
        counted(&bench, &drivers[0].1, 6, &v6("2001:db8::2")).await,
        of_address(2),
        "the same network"
    );
    assert_eq!(counted(&bench, last, 7, &v6("10.0.0.9")).await, None, "a proxy that is not named");
    // Who was new when they were seen, and is not any more.
    grow_old(&bench, drivers[0].0).await;
    assert_eq!(counted(&bench, last, 8, ADDRESS).await, of_address(2));
    execute(&bench, "update upload_origins set seen_at = seen_at - interval '25 hours'").await;
    assert_eq!(counted(&bench, last, 9, ADDRESS).await, of_address(1), "a day later");
    let both = OriginFacts { accounts_of_device: Some(1), young_accounts_of_address: Some(1) };
    assert_eq!(counted(&bench, last, 10, &format!("{DEVICE}{ADDRESS}")).await, Some(both));
    let device_alone = counted(&bench, &drivers[3].1, 11, &format!("{DEVICE}{ADDRESS}")).await;
    assert_eq!(device_alone, of_device(2), "an old account has its device counted");
}

#[tokio::test]
async fn accounts_that_come_at_the_same_instant_are_all_in_the_table_and_at_most_64_are_counted() {
    let bench = Bench::start().await;
    let mut drivers = Vec::new();
    for _ in 0..8 {
        drivers.push(bench.driver().await.1);
    }
    let forms: Vec<Form> = (1..9).map(|seed| Form::photo(&jpeg(seed))).collect();
    let posts = drivers.iter().zip(&forms).map(|(token, form)| bench.post_with(token, form, DEVICE));
    let responses = futures::future::join_all(posts).await;
    assert!(responses.iter().all(|response| response.status == 202), "{responses:?}");
    assert_eq!(counted(&bench, &drivers[0], 9, DEVICE).await, of_device(8));
    execute(
        &bench,
        "insert into upload_origins select gen_random_uuid(), origin, now()
         from (select distinct origin from upload_origins) o, generate_series(1, 100)",
    )
    .await;
    assert_eq!(counted(&bench, &drivers[0], 10, DEVICE).await, of_device(64));
}

#[tokio::test]
async fn who_sends_steadily_writes_once_an_hour() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let row = async || -> (String, bool) {
        sqlx::query_as(
            "select ctid::text || xmax::text, seen_at > now() - interval '1 minute' from upload_origins",
        )
        .fetch_one(&bench.pool)
        .await
        .unwrap()
    };
    assert_eq!(counted(&bench, &token, 1, DEVICE).await, of_device(1));
    let first = row().await;
    assert_eq!(counted(&bench, &token, 2, DEVICE).await, of_device(1));
    assert_eq!(row().await, first, "neither written nor locked");
    execute(&bench, "update upload_origins set seen_at = seen_at - interval '61 minutes'").await;
    assert_eq!(counted(&bench, &token, 3, DEVICE).await, of_device(1));
    assert!(row().await.1, "seen again");
}

#[tokio::test]
async fn neither_the_device_nor_the_address_nor_their_codes_are_in_a_record_and_no_row_has_the_first_two() {
    let bench = Bench::start_with(behind_a_proxy).await;
    let (_, token) = bench.driver().await;
    counted(&bench, &token, 1, &format!("{DEVICE}{ADDRESS}")).await.unwrap();
    let kept: Vec<(Vec<u8>, String)> =
        sqlx::query_as("select origin, o::text from upload_origins o").fetch_all(&bench.pool).await.unwrap();
    assert_eq!(kept.len(), 2);
    let secrets = ["planted-device", "203.0.113.9"].map(|secret| secret.as_bytes().to_vec());
    let codes = kept.iter().flat_map(|(code, _)| [code.clone(), hex::encode(code).into_bytes()]);
    let all: Vec<Vec<u8>> = secrets.iter().cloned().chain(codes).chain([vec![203, 0, 113, 9]]).collect();
    for record in bench.kafka.uploads() {
        let headers = record.headers.into_iter().filter_map(|(_, value)| value);
        for bytes in headers.chain(record.key).chain(record.payload) {
            assert!(all.iter().all(|secret| !bytes.windows(secret.len()).any(|part| part == secret)));
        }
    }
    assert!(
        kept.iter().all(|(_, row)| !row.contains("planted") && !row.contains(&hex::encode("planted-device")))
    );
}

#[tokio::test]
async fn an_erased_account_leaves_no_row_and_those_of_others_stay() {
    let bench = Bench::start_with(|config| {
        behind_a_proxy(config);
        config.erasure_grace = Duration::ZERO;
    })
    .await;
    let [(user, token), (_, other)] = [bench.driver().await, bench.driver().await];
    let headers = format!("{DEVICE}{ADDRESS}");
    counted(&bench, &token, 1, &headers).await.unwrap();
    counted(&bench, &other, 2, &headers).await.unwrap();
    assert_eq!(rows(&bench).await, 4);
    let asked = bench.json("DELETE", "/v1/me", &token, &serde_json::json!({})).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let ids = (MemorySchemas::id_of::<UserErased>(), MemorySchemas::id_of::<OdometerRead>());
    assert!(erase(&bench.pool, ids, user, SystemClock.now()).await.unwrap());
    let left: Vec<uuid::Uuid> = sqlx::query_scalar("select distinct user_id from upload_origins")
        .fetch_all(&bench.pool)
        .await
        .unwrap();
    assert!(left.len() == 1 && left[0] != user.0, "{left:?}");
    assert_eq!(counted(&bench, &other, 3, DEVICE).await, of_device(1));
}

#[tokio::test]
async fn a_device_id_that_is_no_id_is_refused_and_nothing_is_kept() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    for bad in ["", "a b", "Gerät", &"x".repeat(129)] {
        let header = format!("x-device-id: {bad}\r\n");
        let refused = bench.post_with(&token, &Form::photo(&jpeg(1)), &header).await;
        refused.assert_problem(400, "device_id_invalid");
    }
    bench.assert_nothing_left();
    assert_eq!(rows(&bench).await, 0);
    let document = bench.get("/openapi.json", "").await.json();
    let parameters = document["paths"]["/v1/uploads"]["post"]["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "X-Device-Id"), "{parameters:?}");
}

#[tokio::test]
async fn a_photo_that_is_refused_or_known_already_is_not_counted() {
    let bench = Bench::start().await;
    let [(_, one), (_, two)] = [bench.driver().await, bench.driver().await];
    let form = Form::photo(&jpeg(1));
    assert_eq!(bench.post(&one, &form).await.status, 202);
    assert_eq!(bench.post_with(&one, &form, DEVICE).await.status, 200);
    assert_eq!(bench.post_with(&two, &Form::photo(b"no photo"), DEVICE).await.status, 415);
    assert_eq!(rows(&bench).await, 0);
}

#[tokio::test]
async fn what_is_older_than_thirty_days_is_taken_away() {
    let bench = Bench::start().await;
    // More than a statement takes.
    execute(
        &bench,
        "insert into upload_origins
         select gen_random_uuid(), sha256(n::text::bytea), now() - interval '29 days' - (n % 2) * interval '2 days'
         from generate_series(1, 3000) n",
    )
    .await;
    let _another = bench.another(|_| {}).await;
    let pruned = async {
        while rows(&bench).await > 1500 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), pruned).await.unwrap();
    assert_eq!(rows(&bench).await, 1500);
}

/// How often the two tables were read whole, and the one by index.
async fn scans(bench: &Bench) -> (i64, i64) {
    sqlx::query_as(
        "select sum(seq_scan)::int8, sum(idx_scan) filter (where relname = 'upload_origins')::int8 from pg_stat_user_tables
         where schemaname = current_schema() and relname in ('upload_origins', 'users')",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn neither_the_count_nor_what_takes_old_rows_away_reads_a_table_whole() {
    let bench = Bench::start_with(behind_a_proxy).await;
    execute(
        &bench,
        "insert into users (id, created_at) select gen_random_uuid(), now() - (n % 20) * interval '1 day' from generate_series(1, 50000) n;
         insert into upload_origins select id, sha256((row_number() over () / 3)::text::bytea), now() - random() * interval '30 days'
         from users;
         analyze users, upload_origins",
    )
    .await;
    let drivers = [bench.driver().await.1, bench.driver().await.1];
    tell_scans(&bench.pool).await.unwrap();
    let (whole, by_index) = scans(&bench).await;
    for seed in 0..16 {
        let token = &drivers[usize::try_from(seed % 2).unwrap()];
        counted(&bench, token, seed, &format!("{DEVICE}{ADDRESS}")).await.unwrap();
    }
    let _another = bench.another(|_| {}).await;
    // A connection tells what it has read once it ends.
    let told = async {
        while scans(&bench).await.1 < by_index + 32 {
            sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where application_name = current_setting('application_name') and pid <> pg_backend_pid() and query ilike '%upload_origins%'",
            )
            .execute(&bench.pool)
            .await
            .unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    assert_eq!(scans(&bench).await.0, whole);
}
