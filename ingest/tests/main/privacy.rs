//! What somebody may have of what is kept about them, and its end.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use ingest::erasure::{Due, due, erase};
use ingest::{Documents, PersonLogs};
use runtime::clock::{Clock as _, SystemClock};
use runtime::testing::MemorySchemas;
use schemas::codec;
use schemas::events::{Event as _, OdometerRead, UserErased};
use schemas::ids::{Micros, UserId};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::signing_in::{GENESIS, access, bench, signed_in, wallet};
use crate::support::{Bench, Form, Response, SCHEMAS, jpeg};

/// The body of a chunked response.
fn whole(response: &Response) -> Vec<u8> {
    let (mut rest, mut body) = (&response.bytes[..], Vec::new());
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").expect("a chunk has a length");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}

/// The files of an archive by their names.
fn files(response: &Response) -> BTreeMap<String, Vec<u8>> {
    assert_eq!(response.status, 200, "{}", response.body);
    let mut archive = zip::ZipArchive::new(Cursor::new(whole(response))).unwrap();
    let mut files = BTreeMap::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        files.insert(file.name().unwrap().into_owned(), content);
    }
    files
}

fn rows(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Vec<Value> {
    serde_json::from_slice(&files[name]).unwrap_or_else(|error| panic!("{name}: {error}"))
}

async fn export(bench: &Bench, token: &str) -> Response {
    bench.get("/v1/me/export", token).await
}

#[tokio::test]
async fn an_export_holds_all_stores_and_photos_of_the_person_and_nothing_of_others() {
    let (bench, wallet) = (bench().await, wallet());
    let tokens = signed_in(&bench, &wallet).await;
    let token = access(&tokens);
    let name = json!({ "username": "Ada Läufer", "email": "ada@example.org" });
    assert_eq!(bench.json("PATCH", "/v1/me", token, &name).await.status, 200);
    let vehicle = json!({ "name": "the red one", "unit": "km" });
    assert_eq!(bench.json("POST", "/v1/vehicles", token, &vehicle).await.status, 201);
    let photos = [jpeg(1), jpeg(2)];
    let mut uploads = Vec::new();
    for photo in &photos {
        let response = bench.post(token, &Form::photo(photo)).await.json();
        uploads.push(response["upload_id"].as_str().unwrap().to_owned());
    }
    let (_, other) = bench.driver().await;
    let others = bench.post(&other, &Form::photo(&jpeg(3))).await.json();
    let response = export(&bench, token).await;
    for header in ["content-type: application/zip", "cache-control: private, no-store", ".zip\""] {
        assert!(response.head.contains(header), "{}", response.head);
    }
    let files = files(&response);
    let [user] = &rows(&files, "users.json")[..] else { panic!("one account") };
    assert_eq!((&user["username"], &user["email"]), (&json!("Ada Läufer"), &json!("ada@example.org")));
    assert_eq!(rows(&files, "user_wallets.json")[0]["wallet_address"], wallet.address().to_string());
    assert_eq!(rows(&files, "vehicles.json").iter().filter(|row| row["name"] == "the red one").count(), 1);
    let session = &rows(&files, "user_sessions.json")[0];
    assert!(session.get("refresh_token").is_none() && session["ip_address"] == "127.0.0.1", "{session}");
    let actions: Vec<Value> =
        rows(&files, "system_audit_logs.json").iter().map(|row| row["action"].clone()).collect();
    assert!(
        actions.contains(&json!("user.update")) && actions.contains(&json!("user.export")),
        "{actions:?}"
    );
    for (upload, photo) in uploads.iter().zip(&photos) {
        assert!(files[&format!("photos/{upload}.jpg")] == *photo);
    }
    let pictures = files.keys().filter(|name| name.starts_with("photos/")).count();
    assert_eq!(pictures, 2, "{:?}", files.keys());
    let others = others["upload_id"].as_str().unwrap().as_bytes();
    assert!(files.values().all(|file| !file.windows(others.len()).any(|part| part == others)));
    let about: Value = serde_json::from_slice(&files["about.json"]).unwrap();
    for name in files.keys().filter(|name| name.ends_with(".json") && *name != "about.json") {
        assert!(about["files"][name].is_string(), "{name} is explained: {about}");
    }
    // Without their hashes tokens can neither be guessed at nor compared.
    let tokens = ["sha256:", access(&tokens)];
    let text = |name: &str| String::from_utf8_lossy(&files[name]).into_owned();
    assert!(tokens.iter().all(|secret| !text("user_sessions.json").contains(secret)));
}

#[tokio::test]
async fn an_export_pages_through_what_is_much_and_names_the_photos_that_are_gone() {
    let (bench, wallet) = (bench().await, wallet());
    let tokens = signed_in(&bench, &wallet).await;
    let user: Uuid = tokens["user_id"].as_str().unwrap().parse().unwrap();
    sqlx::query(
        "insert into odometer_uploads (id, user_id, image_hash, created_at)
         select gen_random_uuid(), $1, repeat('ab', 32), now() from generate_series(1, 450)",
    )
    .bind(user)
    .execute(&bench.pool)
    .await
    .unwrap();
    let files = files(&export(&bench, access(&tokens)).await);
    assert_eq!(rows(&files, "uploads.json").len(), 450);
    assert_eq!(rows(&files, "photos/missing.json").len(), 450);
}

/// Log documents in memory; the last cannot be read.
struct Logs(bool);

impl PersonLogs for Logs {
    fn about(&self, user: UserId, _: Vec<Uuid>, _: Vec<String>) -> Documents {
        let document = move |n: u32| json!({ "user_id": user, "n": n });
        let mut found = vec![
            Ok(("auth_logs", document(1))),
            Ok(("auth_logs", document(2))),
            Ok(("error_logs", document(3))),
        ];
        if self.0 {
            found.push(Err("no server".into()));
        }
        stream::iter(found).boxed()
    }
}

#[tokio::test]
async fn an_export_holds_log_documents_by_collection_and_says_where_some_could_not_be_read() {
    let bench = bench().await;
    let (_, token) = bench.driver().await;
    for broken in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = bench.gateway.clone().with_logs(Arc::new(Logs(broken)));
        tokio::spawn(ingest::serve(listener, gateway, bench.stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET /v1/me/export HTTP/1.1\r\nauthorization: Bearer {token}\r\nhost: gateway.test\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let files = files(&Response::read(stream).await);
        let numbers = |name: &str| rows(&files, name).iter().map(|row| row["n"].clone()).collect::<Vec<_>>();
        assert_eq!(numbers("logs/auth_logs.json"), [1, 2]);
        assert_eq!(numbers("logs/error_logs.json"), [3]);
        assert_eq!(files.contains_key("logs/incomplete.txt"), broken);
        assert!(files.contains_key("users.json"), "the rest is there");
    }
}

#[tokio::test]
async fn exports_are_few_a_day() {
    let bench = bench().await;
    let (_, token) = bench.driver().await;
    for _ in 0..4 {
        assert_eq!(export(&bench, &token).await.status, 200);
    }
    export(&bench, &token).await.assert_problem(429, "rate_limited");
}

/// A bench on which nobody waits.
async fn at_once() -> Bench {
    Bench::start_with(|config| {
        let secret = "s".repeat(32).into();
        config.chain = Some(ingest::config::ChainAccess { genesis_id: GENESIS.into(), secret });
        config.erasure_grace = Duration::ZERO;
    })
    .await
}

async fn delete(bench: &Bench, token: &str) -> Response {
    bench.json("DELETE", "/v1/me", token, &json!({})).await
}

fn ids() -> (u32, u32) {
    (MemorySchemas::id_of::<UserErased>(), MemorySchemas::id_of::<OdometerRead>())
}

/// Every row of every table that holds a text.
async fn tables_with(bench: &Bench, mark: &str) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables
         where table_schema = current_schema() and table_type = 'BASE TABLE' order by 1",
    )
    .fetch_all(&bench.pool)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        // Bytes are shown as hexadecimal digits.
        let sql = format!(
            "select t::text from {table} t where t::text ilike '%' || $1 || '%' or t::text ilike '%' || $2 || '%' limit 1"
        );
        let row: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(mark)
            .bind(hex::encode(mark))
            .fetch_optional(&bench.pool)
            .await
            .unwrap();
        found.extend(row.map(|row| format!("{table}: {row}")));
    }
    found
}

#[tokio::test]
async fn erasure_is_asked_for_shown_and_taken_back_and_nothing_changes_meanwhile() {
    let (bench, wallet) = (bench().await, wallet());
    let tokens = signed_in(&bench, &wallet).await;
    let token = access(&tokens);
    let asked = delete(&bench, token).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    assert_eq!(asked.json()["unclaimed"], "0");
    let again = delete(&bench, token).await;
    assert_eq!((again.status, again.json()), (200, asked.json()));
    let me = bench.get("/v1/me", token).await.json();
    assert_eq!(me["erasure_due_at"], asked.json()["erasure_due_at"]);
    let now = SystemClock.now();
    assert_eq!(due(&bench.pool, now, Duration::ZERO, None).await.unwrap(), [], "not yet");
    assert_eq!(bench.post(token, &Form::photo(&jpeg(1))).await.status, 202, "it works on");
    for _ in 0..2 {
        assert_eq!(bench.json("POST", "/v1/me/keep", token, &json!({})).await.status, 204);
    }
    assert_eq!(bench.get("/v1/me", token).await.json()["erasure_due_at"], json!(null));
    let later = Micros(now.0 + 30 * 86_400_000_000);
    assert_eq!(due(&bench.pool, later, Duration::ZERO, None).await.unwrap(), [], "they have kept it");
    let actions: Vec<String> =
        sqlx::query_scalar("select action from system_audit_logs where module = 'users' order by timestamp")
            .fetch_all(&bench.pool)
            .await
            .unwrap();
    assert_eq!(actions, ["user.erasure_request", "user.erasure_cancel"]);
}

#[tokio::test]
async fn once_its_time_has_come_no_row_holds_what_a_person_said_or_was_known_by() {
    let (bench, wallet) = (at_once().await, wallet());
    let tokens = signed_in(&bench, &wallet).await;
    let (token, user) = (access(&tokens), UserId(tokens["user_id"].as_str().unwrap().parse().unwrap()));
    let send = async |method: &str, path: &str, body: Value| {
        let response = bench.json(method, path, token, &body).await;
        assert!(response.status < 300, "{path}: {response:?}");
    };
    let image = "https://images.example/planted-image.png";
    send(
        "PATCH",
        "/v1/me",
        json!({ "username": "planted-name", "email": "planted@example.org", "profile_image": image }),
    )
    .await;
    send("POST", "/v1/me/email/code", json!({})).await;
    send("POST", "/v1/vehicles", json!({ "name": "planted-vehicle" })).await;
    let file = Form::default().part("photo", "; filename=\"planted-file.jpg\"", &jpeg(1));
    let headers = "user-agent: planted-agent\r\nidempotency-key: planted-key\r\n";
    assert_eq!(bench.post_with(token, &file, headers).await.status, 202);
    bench.relay().await;
    let open = crate::reviews::doubt(&bench, user, 0).await.header.upload_id;
    let address = wallet.address().to_string();
    let marks = ["planted", &address[2..], "127.0.0.1"];
    for mark in marks {
        assert!(!tables_with(&bench, mark).await.is_empty(), "{mark} is there before");
    }
    assert_eq!(delete(&bench, token).await.status, 202);
    let too_late = bench.json("POST", "/v1/me/keep", token, &json!({})).await;
    too_late.assert_problem(410, "erasure_due");

    let now = SystemClock.now();
    let [found] = due(&bench.pool, now, Duration::ZERO, None).await.unwrap()[..] else {
        panic!("one is due")
    };
    assert_eq!((found.user_id, found.erased_at), (user.0, None));
    assert!(erase(&bench.pool, ids(), user, now).await.unwrap());
    assert!(!erase(&bench.pool, ids(), user, now).await.unwrap(), "once");
    bench.relay().await;
    // What is published is kept for a while, but nothing of this person.
    assert!(!erase(&bench.pool, ids(), user, now).await.unwrap());
    for mark in marks {
        assert_eq!(tables_with(&bench, mark).await, Vec::<String>::new(), "{mark} is left");
    }
    let codes: i64 =
        sqlx::query_scalar("select count(*) from email_codes").fetch_one(&bench.pool).await.unwrap();
    assert_eq!(codes, 0);
    bench.get("/v1/me", token).await.assert_problem(403, "account_locked");
    let tombstone = bench.kafka.records("accounts.changed").pop().unwrap();
    assert_eq!((tombstone.key.as_deref(), tombstone.payload), (Some(user.to_string().as_bytes()), None));
    let [event] = &bench.kafka.records("accounts.events")[..] else { panic!("one event") };
    let (id, datum) = codec::unframe(event.payload.as_deref().unwrap()).unwrap();
    let event: UserErased = codec::decode(UserErased::schema(), id, datum).unwrap();
    assert_eq!(event.user_id, user);
    let decided: bool = sqlx::query_scalar("select decided_at is not null from reviews where upload_id = $1")
        .bind(open.0)
        .fetch_one(&bench.pool)
        .await
        .unwrap();
    assert!(decided, "a review whose photo goes has ended");

    let again = signed_in(&bench, &wallet).await;
    assert_ne!(again["user_id"], tokens["user_id"], "the wallet begins anew");
    let mut tx = bench.pool.begin().await.unwrap();
    let unlocked = ingest::users::set_active(&mut tx, SCHEMAS(), user, true, now).await;
    assert!(matches!(unlocked, Err(ingest::users::UserError::Erased(_))), "{unlocked:?}");
}

#[tokio::test]
async fn the_audit_log_lets_values_go_of_nobody_but_the_erased() {
    let bench = at_once().await;
    let (user, token) = bench.driver().await;
    let name = json!({ "username": "Ada Läufer" });
    assert_eq!(bench.json("PATCH", "/v1/me", &token, &name).await.status, 200);
    let change = async |set: &str| {
        let sql = format!(
            "update system_audit_logs set ip_address = null, user_agent = null, {set} where user_id = $1"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(user.0).execute(&bench.pool).await
    };
    let erased = "action_details = system_audit_logs_erased(action_details)";
    assert!(change(erased).await.is_err(), "nobody has asked for it");
    assert_eq!(delete(&bench, &token).await.status, 202);
    assert!(change(erased).await.is_err(), "it is not done yet");
    assert!(erase(&bench.pool, ids(), user, SystemClock.now()).await.unwrap());
    for other in ["action = 'x'", "severity = 'error'", "action_details = '{}'", "timestamp = now()"] {
        assert!(change(other).await.is_err(), "{other}");
    }
    assert!(sqlx::query("delete from system_audit_logs").execute(&bench.pool).await.is_err());
}

#[tokio::test]
async fn a_database_from_before_an_erasure_learns_of_it_from_the_topics() {
    let bench = bench().await;
    let (user, _) = bench.driver().await;
    sqlx::query("insert into erased_users (user_id, erased_at) values ($1, now())")
        .bind(user.0)
        .execute(&bench.pool)
        .await
        .unwrap();
    let now = Micros(SystemClock.now().0 + 1_000_000);
    assert_eq!(due(&bench.pool, now, Duration::ZERO, None).await.unwrap().len(), 1);
    assert!(erase(&bench.pool, ids(), user, now).await.unwrap());
    assert_eq!(due(&bench.pool, now, Duration::ZERO, None).await.unwrap().len(), 0);
    assert_eq!(
        due(&bench.pool, now, Duration::from_secs(60), None).await.unwrap().len(),
        0,
        "nothing is late yet"
    );
    let later = Micros(now.0 + 1_000_000);
    assert_eq!(
        due(&bench.pool, later, Duration::from_secs(60), None).await.unwrap().len(),
        1,
        "what comes late"
    );
}

#[tokio::test]
async fn everybody_who_is_due_is_found_once_and_first_those_who_were_not_erased_yet() {
    let bench = Bench::start().await;
    sqlx::raw_sql(
        "insert into users (id) select lpad(to_hex(n), 32, '0')::uuid from generate_series(1, 350) n;
         insert into erasures (user_id, requested_at, due_at, erased_at)
         select id, now() - interval '9 days', now() - interval '8 days', now() - interval '1 day' from users
         order by id limit 230;
         insert into erasures (user_id, requested_at, due_at)
         select id, now() - interval '8 days', now() - interval '1 day' from users order by id offset 230;",
    )
    .execute(&bench.pool)
    .await
    .unwrap();
    let (now, again) = (SystemClock.now(), Duration::from_secs(9 * 86_400));
    let mut found: Vec<Due> = Vec::new();
    loop {
        let next = due(&bench.pool, now, again, found.last().copied()).await.unwrap();
        if next.is_empty() {
            break;
        }
        found.extend(next);
    }
    let expected: Vec<Uuid> = (231..=350).chain(1..=230).map(Uuid::from_u128).collect();
    assert_eq!(found.iter().map(|due| due.user_id).collect::<Vec<_>>(), expected);
}
