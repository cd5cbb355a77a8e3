//! `/proofs/{id}`: what a payment on the chain links to, as a browser gets it.

use schemas::ids::{RewardId, UploadId, UserId};
use uuid::Uuid;

use crate::support::{Bench, Response};

const TX: &str = "0x00000000000000000000000000000000000000000000000000000000000000aa";

async fn page(bench: &Bench, id: &str, headers: &str) -> Response {
    bench.send(&format!("GET /proofs/{id} HTTP/1.1{headers}"), b"").await
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
}

fn text(response: &Response) -> String {
    String::from_utf8(response.bytes.clone()).unwrap()
}

async fn run(bench: &Bench, statement: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&bench.pool).await.unwrap();
}

/// A reward of a verified reading, without a transaction.
async fn reward(bench: &Bench, user: UserId) -> (Uuid, RewardId) {
    let upload = Uuid::now_v7();
    let id = RewardId::of(UploadId(upload));
    let user = user.0;
    let hash = "ab".repeat(32);
    run(
        bench,
        format!(
            "insert into users (id, username) values ('{user}', 'Ada Driver')
             on conflict (id) do update set username = excluded.username;
             insert into odometer_uploads (id, user_id, image_hash, image_url, original_filename, vehicle_kind, created_at)
             values ('{upload}', '{user}', '{hash}', 'https://photos.example/p', 'ada.jpg', 'electric', '2026-03-02T23:59:00Z');
             insert into mileage_data (id, upload_id, final_mileage, mileage_unit, distance_traveled, verification_status)
             values (gen_random_uuid(), '{upload}', 123789, 'km', 333, 'approved');
             insert into reading_results (image_hash, reader_version, chain, result)
             values ('{hash}', 'locator@1.2,line_reader@3.4', '', '{{}}');
             insert into rewards (id, user_id, upload_id, base_amount, bonus_amount, distance_traveled, status, created_at)
             values ('{id}', '{user}', '{upload}', 8.325, 0, 333, 'pending', now())"
        ),
    )
    .await;
    (upload, id)
}

async fn pay(bench: &Bench, user: UserId, id: RewardId) {
    let user = user.0;
    run(
        bench,
        format!(
            "insert into reward_transactions (id, reward_id, user_id, blockchain_tx_hash, to_address, amount, block_number,
                confirmation_count, status, attempt_no, created_at)
             values (gen_random_uuid(), '{id}', '{user}', '{TX}', '0x{}', 8.325, 77, 3, 'pending', 1, now());
             insert into payouts (reward_id, user_id, amount_wei, state, distance_km, header, stamp, updated_at)
             values ('{id}', '{user}', 8325000000000000000, 'in_flight', 333, '{{}}', '{{}}', now());
             insert into blockchain_transactions (id, tx_hash, status) values (gen_random_uuid(), '{TX}', 'pending')",
            "cd".repeat(20)
        ),
    )
    .await;
}

#[tokio::test]
async fn the_page_of_a_payment_shows_reading_and_payment_and_nothing_of_the_person() {
    let bench = Bench::start().await;
    let (user, _) = bench.driver().await;
    let (upload, id) = reward(&bench, user).await;
    assert_eq!(
        page(&bench, &id.to_string(), "").await.status,
        404,
        "nothing links to it before it is signed"
    );
    pay(&bench, user, id).await;
    let response = page(&bench, &id.to_string(), "").await;
    assert_eq!((response.status, header(&response, "content-type")), (200, Some("text/html; charset=utf-8")));
    let shown = text(&response);
    let (reward, wallet) = (id.to_string(), format!("0x{}", "cd".repeat(20)));
    for fact in [
        "333 km",
        "123,789 km",
        "8.325 B3TR",
        "26,640 g",
        "2026-03-02",
        "electric",
        "locator@1.2, line_reader@3.4",
        "On its way: 3 of 12 confirmations",
        TX,
        reward.as_str(),
    ] {
        assert!(shown.contains(fact), "{fact} is missing: {shown}");
    }
    run(&bench, "update payouts set distance_km = null".to_owned()).await;
    let old = text(&page(&bench, &reward, "").await);
    assert!(old.contains("not told with this payment") && !old.contains("26,640 g"), "{old}");
    let (user, upload) = (user.0.to_string(), upload.to_string());
    for secret in [&user, &upload, &wallet, "Ada", "ada.jpg", "photos.example", &"ab".repeat(32), "23:59"] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}

#[tokio::test]
async fn a_page_is_kept_for_as_long_as_it_is_true() {
    let bench = Bench::start().await;
    let (user, _) = bench.driver().await;
    let (_, id) = reward(&bench, user).await;
    pay(&bench, user, id).await;
    let moving = page(&bench, &id.to_string(), "").await;
    assert_eq!(header(&moving, "cache-control"), Some("public, max-age=10"));
    let tag = header(&moving, "etag").unwrap().to_owned();
    let same = page(&bench, &id.to_string(), &format!("\r\nif-none-match: {tag}")).await;
    assert_eq!((same.status, same.bytes.len()), (304, 0));
    run(
        &bench,
        format!(
            "update reward_transactions set status = 'confirmed', confirmation_count = 12 where reward_id = '{id}';
             update blockchain_transactions set finalized_at = now()"
        ),
    )
    .await;
    let last = page(&bench, &id.to_string(), &format!("\r\nif-none-match: {tag}")).await;
    assert_eq!((last.status, header(&last, "cache-control")), (200, Some("public, max-age=3600")));
    assert!(text(&last).contains("Paid, final"));
}

#[tokio::test]
async fn pages_ask_nobody_else_run_nothing_and_what_is_not_there_is_a_page_too() {
    let bench = Bench::start().await;
    let (user, _) = bench.driver().await;
    let (_, id) = reward(&bench, user).await;
    pay(&bench, user, id).await;
    let unknown = Uuid::now_v7().to_string();
    for (path, status) in [(id.to_string().as_str(), 200), (&unknown, 404), ("%3Cscript%3E", 404), ("x", 404)]
    {
        let response = page(&bench, path, "").await;
        assert_eq!(
            (response.status, header(&response, "content-type")),
            (status, Some("text/html; charset=utf-8"))
        );
        let policy = header(&response, "content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
        assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"));
        let shown = text(&response);
        assert!(shown.contains("<h1>") && !shown.contains("<script"), "{shown}");
        let style = shown.split("href=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let style = bench.send(&format!("GET {style} HTTP/1.1"), b"").await;
        assert_eq!((style.status, header(&style, "content-type")), (200, Some("text/css; charset=utf-8")));
    }
    assert_eq!(
        bench.send(&format!("POST /proofs/{id} HTTP/1.1\r\ncontent-length: 0"), b"").await.status,
        405
    );
}
