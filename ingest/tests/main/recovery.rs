//! Between reserving and publishing: Kafka silent, the gateway gone.

use std::time::Duration;

use runtime::testing::tell_scans;
use runtime::timers::Ran;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Bench, Form, decode, jpeg};

/// A round that has published so many, and had none refused.
fn of(done: u64) -> Option<Ran> {
    Some(done.into())
}

async fn reserved_bytes(bench: &Bench) -> Vec<u8> {
    sqlx::query_scalar("select event from photo_hashes").fetch_one(&bench.pool).await.unwrap()
}

#[tokio::test]
async fn an_upload_that_kafka_did_not_take_is_published_later_with_exactly_its_bytes() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    bench.kafka.set_silent(true);
    let response = bench.post(&token, &Form::photo(&jpeg(1))).await;
    let problem = response.assert_problem(503, "not_published");
    assert!(problem["retry_after"].as_u64().is_some() && problem["upload_id"].as_str().is_some());
    assert!(!response.body.contains("10.0.0.9"), "nothing of the inside is shown: {response:?}");
    let bytes = reserved_bytes(&bench).await;

    // The gateway ends here; another one begins, with the same database, and sweeps.
    bench.kafka.set_silent(false);
    assert_eq!(bench.gateway.republish_reserved(Duration::from_secs(60)).await.unwrap(), of(0), "too young");
    assert_eq!(bench.gateway.republish_reserved(Duration::ZERO).await.unwrap(), of(1));
    assert_eq!(bench.gateway.republish_reserved(Duration::ZERO).await.unwrap(), of(0), "once");
    let published: Vec<_> = bench.kafka.uploads().into_iter().map(|record| record.payload.unwrap()).collect();
    assert_eq!(published, std::slice::from_ref(&bytes));
    assert_eq!(decode(&bytes).header.upload_id.to_string(), problem["upload_id"].as_str().unwrap());
    let again = bench.post(&token, &Form::photo(&jpeg(1))).await;
    assert_eq!((again.status, &again.json()["upload_id"]), (200, &problem["upload_id"]));
    assert_eq!(bench.kafka.documents("upload_processing_logs").len(), 1);
}

#[tokio::test]
async fn a_mark_that_waits_for_the_photos_holder_holds_no_lock_that_a_reservation_takes_after_it() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    bench.kafka.set_silent(true);
    bench.post(&token, &Form::photo(&jpeg(1))).await.assert_problem(503, "not_published");
    bench.kafka.set_silent(false);
    // What a second request for the photo locks first.
    let mut reservation = bench.pool.begin().await.unwrap();
    let own: i32 = sqlx::query_scalar("select pg_backend_pid() from photo_first_holders for update")
        .fetch_one(&mut *reservation)
        .await
        .unwrap();
    let gateway = bench.gateway.clone();
    let marking = tokio::spawn(async move { gateway.republish_reserved(Duration::ZERO).await.unwrap() });
    // Asked outside of the transaction, which sees one state of it for all its life.
    let waits = async {
        let waiting = "select exists (select from pg_stat_activity where $1 = any (pg_blocking_pids(pid)))";
        while !sqlx::query_scalar::<_, bool>(waiting).bind(own).fetch_one(&bench.pool).await.unwrap() {}
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap();
    // And second: an error here is the deadlock.
    sqlx::query("select from photo_hashes for update nowait").execute(&mut *reservation).await.unwrap();
    reservation.commit().await.unwrap();
    assert_eq!(marking.await.unwrap(), of(1));
    let marked: bool = sqlx::query_scalar(
        "select p.published_at is not null and p.published_at = f.published_at
         from photo_hashes p join photo_first_holders f using (upload_id)",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap();
    assert!(marked);
}

#[tokio::test]
async fn a_serving_gateway_publishes_what_was_left_reserved_without_being_asked() {
    let bench = Bench::start_with(|config| {
        config.timeouts.publish = Duration::from_millis(50);
        config.timeouts.sweep = Duration::from_millis(50);
    })
    .await;
    let (_, token) = bench.driver().await;
    bench.kafka.set_silent(true);
    bench.post(&token, &Form::photo(&jpeg(1))).await.assert_problem(503, "not_published");
    let bytes = reserved_bytes(&bench).await;
    bench.kafka.set_silent(false);
    let published = async {
        while bench.kafka.uploads().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), published).await.unwrap();
    assert_eq!(bench.kafka.uploads()[0].payload, Some(bytes));
}

#[tokio::test]
async fn a_client_that_tries_again_has_the_reserved_bytes_published() {
    let bench = Bench::start_with(|config| config.timeouts.publish = Duration::from_millis(200)).await;
    let (_, token) = bench.driver().await;
    bench.kafka.set_silent(true);
    bench.post(&token, &Form::photo(&jpeg(1))).await.assert_problem(503, "not_published");
    let bytes = reserved_bytes(&bench).await;
    bench.post(&token, &Form::photo(&jpeg(1))).await.assert_problem(503, "not_published");
    bench.kafka.set_silent(false);
    let taken = bench.post(&token, &Form::photo(&jpeg(1))).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    let published: Vec<_> = bench.kafka.uploads().into_iter().map(|record| record.payload.unwrap()).collect();
    assert_eq!(published, [bytes]);
}

#[tokio::test]
async fn whoever_reserved_first_stays_the_first_holder_though_published_last() {
    let bench = Bench::start().await;
    let ((first, mine), (_, other)) = (bench.driver().await, bench.driver().await);
    bench.kafka.set_silent(true);
    bench.post(&mine, &Form::photo(&jpeg(1))).await.assert_problem(503, "not_published");
    bench.kafka.set_silent(false);
    assert_eq!(bench.post(&other, &Form::photo(&jpeg(1))).await.status, 202);
    bench.gateway.republish_reserved(Duration::ZERO).await.unwrap();
    let events = bench.kafka.events();
    assert_eq!(events[0].stamp.first_holder.unwrap().user_id, first);
    assert_eq!((events[1].header.user_id, events[1].stamp.first_holder), (first, None));
}

#[tokio::test]
async fn a_users_photos_reserved_while_kafka_was_silent_go_out_before_the_next_one_in_the_order_of_acceptance()
 {
    let bench = Bench::start_with(|config| config.timeouts.publish = Duration::from_millis(100)).await;
    let ((user, token), (_, other)) = (bench.driver().await, bench.driver().await);
    // The first two make the vehicle and the key, so that what follows is reserved in batches.
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(1))).await.status, 202);
    assert_eq!(bench.post(&other, &Form::photo(&jpeg(2))).await.status, 202);
    bench.kafka.set_silent(true);
    for seed in [3, 4] {
        bench.post(&token, &Form::photo(&jpeg(seed))).await.assert_problem(503, "not_published");
    }
    bench.kafka.set_silent(false);
    // One that does not wait: its driver has nothing unpublished.
    assert_eq!(bench.post(&other, &Form::photo(&jpeg(5))).await.status, 202);
    assert_eq!(bench.kafka.uploads().len(), 3);
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(6))).await.status, 202);
    // Nothing is left for the sweeper, once what was published is marked so.
    let marked = async {
        let open = "select count(*) from photo_hashes where published_at is null";
        while sqlx::query_scalar::<_, i64>(open).fetch_one(&bench.pool).await.unwrap() > 0 {}
    };
    tokio::time::timeout(Duration::from_secs(60), marked).await.unwrap();
    let events = bench.kafka.events();
    let accepted: Vec<_> = events
        .iter()
        .filter(|event| event.header.user_id == user)
        .map(|event| event.header.accepted_at)
        .collect();
    assert_eq!(accepted.len(), 4);
    assert!(accepted.is_sorted(), "{accepted:?}");
}

#[tokio::test]
async fn a_photo_sent_again_goes_out_behind_those_that_its_user_sent_before_it() {
    let bench = Bench::start_with(|config| config.timeouts.publish = Duration::from_millis(100)).await;
    let (_, token) = bench.driver().await;
    bench.kafka.set_silent(true);
    for seed in [1, 2] {
        bench.post(&token, &Form::photo(&jpeg(seed))).await.assert_problem(503, "not_published");
    }
    bench.kafka.set_silent(false);
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(2))).await.status, 202);
    let accepted: Vec<_> = bench.kafka.events().iter().map(|event| event.header.accepted_at).collect();
    assert_eq!(accepted.len(), 2);
    assert!(accepted.is_sorted(), "{accepted:?}");
}

#[tokio::test]
async fn a_reservation_of_nobody_is_left_by_an_upload_that_was_refused() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    bench.post(&token, &Form::photo(b"no photo")).await.assert_problem(415, "unsupported_format");
    for table in ["photo_hashes", "photo_first_holders", "idempotency_keys", "vehicles", "user_keys"] {
        let count = format!("select count(*) from {table}");
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&bench.pool).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn a_database_that_is_gone_is_a_503_and_an_error_document_without_details_for_the_client() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    bench.pool.close().await;
    let response = bench.post(&token, &Form::photo(&jpeg(1))).await;
    response.assert_problem(503, "database_unavailable");
    assert!(!response.body.contains("pool"), "{response:?}");
    assert_eq!(bench.kafka.documents("error_logs")[0]["error_code"], "database_unavailable");
    bench.assert_nothing_left();
}

#[tokio::test]
async fn a_gateway_whose_producer_publishes_no_reserved_upload_for_too_long_is_not_ready_until_it_does() {
    let bench = Bench::start_with(|config| {
        config.timeouts.publish = Duration::from_millis(50);
        config.timeouts.sweep = Duration::from_millis(50);
        config.timeouts.unpublished = Duration::from_millis(500);
    })
    .await;
    let (_, token) = bench.driver().await;
    bench.kafka.set_silent(true);
    bench.post(&token, &Form::photo(&jpeg(1))).await.assert_problem(503, "not_published");
    let until = async |status| {
        while bench.get("/readyz", "").await.status != status {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until(503)).await.unwrap();
    bench.kafka.set_silent(false);
    tokio::time::timeout(Duration::from_secs(60), until(200)).await.unwrap();
    assert_eq!(bench.kafka.uploads().len(), 1);
}

#[tokio::test]
async fn what_a_client_has_asked_for_is_done_to_its_end_though_it_goes_away_meanwhile() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let mut holder = bench.pool.begin().await.unwrap();
    sqlx::query("select from users where id = $1 for update")
        .bind(user.0)
        .execute(&mut *holder)
        .await
        .unwrap();
    let mut client = TcpStream::connect(bench.address).await.unwrap();
    let head =
        format!("DELETE /v1/me HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {token}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(180);
    let holding: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *holder).await.unwrap();
    // By another connection: within a transaction the list of who works stays as it was when it was looked at first.
    let waiting = "select exists (select from pg_stat_activity where $1 = any(pg_blocking_pids(pid)))";
    while !sqlx::query_scalar::<_, bool>(waiting).bind(holding).fetch_one(&bench.pool).await.unwrap() {
        assert!(std::time::Instant::now() < until, "the request does not wait for the account");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(client);
    // By their responses the gateway has seen the end of the first connection too.
    for _ in 0..10 {
        bench.get("/livez", "").await;
    }
    holder.rollback().await.unwrap();
    let asked = "select exists (select from erasures where user_id = $1)";
    while !sqlx::query_scalar::<_, bool>(asked).bind(user.0).fetch_one(&bench.pool).await.unwrap() {
        assert!(std::time::Instant::now() < until, "the request was cut off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_look_for_what_was_left_reserved_does_not_read_all_photos() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    bench.kafka.set_silent(true);
    for seed in [1, 2] {
        bench.post(&token, &Form::photo(&jpeg(seed))).await.assert_problem(503, "not_published");
    }
    bench.kafka.set_silent(false);
    sqlx::raw_sql(
        "insert into users (id) select gen_random_uuid() from generate_series(1, 5000);
         insert into photo_hashes (user_id, image_hash, upload_id, event_id, event, reserved_at, published_at)
         select id, md5(n::text), gen_random_uuid(), gen_random_uuid(), '', now() - n * interval '1 minute', now()
         from users, generate_series(1, 10) n;
         analyze users, photo_hashes",
    )
    .execute(&bench.pool)
    .await
    .unwrap();
    let whole = async || -> i64 {
        tell_scans(&bench.pool).await.unwrap();
        let scans = "select seq_scan from pg_stat_user_tables where schemaname = current_schema() and relname = 'photo_hashes'";
        sqlx::query_scalar(scans).fetch_one(&bench.pool).await.unwrap()
    };
    let before = whole().await;
    assert_eq!(bench.gateway.republish_reserved(Duration::ZERO).await.unwrap(), of(2));
    for _ in 0..8 {
        assert_eq!(bench.gateway.republish_reserved(Duration::ZERO).await.unwrap(), of(0));
    }
    assert_eq!(whole().await, before);
}
