//! Notices: told as people prefer it, at least once, to nobody inside, and not for ever.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::Utc;
use runtime::metrics::Metrics;
use runtime::one_time::OneTimeCode;
use runtime::{Clock as _, ManualClock, Sink as _};
use schemas::codec;
use schemas::events::{ActivityLogged, Event as _, PayoutState, Verdict};
use schemas::ids::{EventId, Micros, RewardId};
use schemas::reason::Reason;
use serde_json::{Value, json};
use sinks::notices::{Deliverer, NoticeEvent, NoticeMetrics, NoticesConfig, Smtp};
use sinks::postgres::UploadEvent;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::payments::{PAID_ON_A, PAID_ON_B, Payment};
use crate::stories::Story;
use crate::support::{Schema, envelopes};

const SECRET: [u8; 32] = [7; 32];
const DAY_US: i64 = 86_400_000_000;

/// A receiver of webhooks or mail in the test itself.
struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
}

/// A request as it came.
#[derive(Debug)]
struct Hook {
    head: String,
    body: String,
    stream: TcpStream,
}

impl Hook {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name}: {}", self.head)).split_once(": ").unwrap().1
    }

    async fn respond(mut self, status: &str) {
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        self.stream.write_all(response.as_bytes()).await.unwrap();
        self.stream.shutdown().await.unwrap();
    }
}

impl Receiver {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    async fn hook(&self) -> Hook {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            bytes.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8(bytes.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return Hook { head: head.to_owned(), body: body.to_owned(), stream };
            }
        }
    }

    /// Takes one mail, as a server of RFC 5321 does, or refuses its receiver; what was said.
    async fn mail(&self, answer_to_rcpt: &str) -> String {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let (mut said, mut in_data) = (String::new(), false);
        stream.write_all(b"220 test\r\n").await.unwrap();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap() == 0 {
                return said;
            }
            said.push_str(&line);
            let answer = match (in_data, line.trim_end()) {
                (true, ".") => {
                    in_data = false;
                    "250 ok"
                }
                (true, _) => continue,
                (false, "DATA") => {
                    in_data = true;
                    "354 go on"
                }
                (false, "QUIT") => return said,
                (false, line) if line.starts_with("RCPT") => answer_to_rcpt,
                _ => "250 ok",
            };
            stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
        }
    }
}

/// A schema, a clock and a person who wants to be told.
struct World {
    schema: Schema,
    clock: Arc<ManualClock>,
    story: Story,
}

impl World {
    async fn new(n: u128, preferences: Value) -> Self {
        let (schema, mut story) = (Schema::new().await, Story::new(n, 1));
        let now = Micros::from(Utc::now());
        (story.header.occurred_at, story.header.accepted_at) = (now, now);
        let world = Self { schema, clock: Arc::new(ManualClock::at(now)), story };
        world.prefers(preferences).await;
        sqlx::query("insert into notice_secrets values ($1, $2, now())")
            .bind(world.story.header.user_id.0)
            .bind(&SECRET[..])
            .execute(&world.schema.pool)
            .await
            .unwrap();
        world
    }

    async fn prefers(&self, preferences: Value) {
        sqlx::query(
            "with u as (insert into users (id, email, email_verified_at)
                         values ($1, 'ada' || left($1::text, 8) || '@example.org', now()) on conflict do nothing)
             insert into user_preferences (id, user_id, notification_preferences, updated_at) values ($1, $1, $2, $3)
             on conflict (user_id) do update set notification_preferences = excluded.notification_preferences,
               updated_at = excluded.updated_at",
        )
        .bind(self.story.header.user_id.0)
        .bind(preferences)
        .bind(self.clock.now().to_utc())
        .execute(&self.schema.pool)
        .await
        .unwrap();
    }

    fn config(&self, smtp: Option<SocketAddr>, private: bool) -> NoticesConfig {
        let smtp = smtp.map(|address| Smtp {
            url: format!("smtp://{address}"),
            credentials: None,
            from: "Milestream <notices@example.org>".into(),
        });
        NoticesConfig {
            smtp,
            private_webhooks: private,
            public_url: "https://m.example".into(),
            timeout: Duration::from_secs(10),
        }
    }

    fn deliverer(&self, config: NoticesConfig) -> Deliverer {
        self.counting(config, NoticeMetrics::register(&Metrics::new().unwrap().exporter).unwrap())
    }

    fn counting(&self, config: NoticesConfig, metrics: NoticeMetrics) -> Deliverer {
        Deliverer::new((self.schema.pool.clone(), 1), config, self.clock.clone(), metrics).unwrap()
    }

    async fn tell(&self, events: Vec<NoticeEvent>) {
        let sink = self.config(Some(([127, 0, 0, 1], 1).into()), true).build(self.schema.pool.clone());
        sink.write(&envelopes(events)).await.unwrap();
        // The sink writes down when it was, by the time of day.
        self.clock.set(self.clock.now().max(Micros::from(Utc::now())));
    }

    fn decided(&self, verdict: Verdict) -> NoticeEvent {
        let reason = (verdict != Verdict::Verified).then_some(Reason::TooDark);
        let UploadEvent::Decided(mut event) = self.story.decided(verdict, reason) else { unreachable!() };
        event.header.occurred_at = self.clock.now();
        NoticeEvent::Decided(Box::new(event))
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.schema.pool).await.unwrap();
    }

    /// As the gateway leaves the row.
    async fn asks_for_a_code(&self) {
        sqlx::query(
            "insert into email_codes (user_id, window_start, asked, asked_at, due_at) values ($1, $2, 1, $2, $2)
             on conflict (user_id) do update set asked_at = $2, due_at = $2, attempts = 0, last_error = null,
               code_hash = null, salt = null, expires_at = null",
        )
        .bind(self.story.header.user_id.0)
        .bind(self.clock.now().to_utc())
        .execute(&self.schema.pool)
        .await
        .unwrap();
    }

    fn later(&self, us: i64) {
        self.clock.set(Micros(self.clock.now().0 + us));
    }

    async fn rows(&self, sql: &'static str) -> Value {
        let sql = format!("select coalesce(jsonb_agg(to_jsonb(r)), '[]') from ({sql}) r");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&self.schema.pool).await.unwrap()
    }

    /// Documents for `integration_logs` in the outbox.
    async fn logs(&self) -> Vec<Value> {
        let payloads: Vec<Vec<u8>> = sqlx::query_scalar("select payload from outbox order by id")
            .fetch_all(&self.schema.pool)
            .await
            .unwrap();
        let document = |payload: Vec<u8>| {
            let (id, datum) = codec::unframe(&payload).unwrap();
            let event = codec::decode::<ActivityLogged>(ActivityLogged::schema(), id, datum).unwrap();
            assert_eq!(event.collection, "integration_logs");
            serde_json::from_str(&event.document).unwrap()
        };
        payloads.into_iter().map(document).collect()
    }
}

fn webhook(to: &str, events: &[&str]) -> Value {
    let off = json!({ "enabled": false, "events": [] });
    json!({ "email": off, "sms": off, "push": off, "webhook": { "enabled": true, "to": to, "events": events } })
}

/// HMAC-SHA256 by OpenSSL: another implementation than the one that signs.
fn openssl_hmac(message: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args([
            "dgst",
            "-sha256",
            "-mac",
            "HMAC",
            "-macopt",
            &format!("hexkey:{}", hex::encode(SECRET)),
            "-binary",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut openssl.stdin.take().unwrap(), message.as_bytes()).unwrap();
    STANDARD.encode(openssl.wait_with_output().unwrap().stdout)
}

#[tokio::test]
async fn a_settled_upload_is_told_once_by_a_webhook_whose_signature_openssl_confirms() {
    let receiver = Receiver::new().await;
    let to = format!("http://{}/hook?token=hidden", receiver.address);
    let world = World::new(1, webhook(&to, &["upload_settled"])).await;
    let decided = world.decided(Verdict::Verified);
    // Read again, and with others that nobody asked for.
    world.tell(vec![decided.clone(), world.decided(Verdict::Review)]).await;
    world.tell(vec![decided]).await;
    let deliverer = world.deliverer(world.config(None, true));
    let (sent, hook) = tokio::join!(deliverer.round(), async {
        let hook = receiver.hook().await;
        let (id, time) = (hook.header("webhook-id").to_owned(), hook.header("webhook-timestamp").to_owned());
        let signed = format!("{id}.{time}.{}", hook.body);
        assert_eq!(hook.header("webhook-signature"), format!("v1,{}", openssl_hmac(&signed)));
        assert_eq!(time.parse::<i64>().unwrap(), world.clock.now().0 / 1_000_000);
        let body: Value = serde_json::from_str(&hook.body).unwrap();
        hook.respond("204 No Content").await;
        (id, body)
    });
    assert_eq!(sent.unwrap(), 1);
    let (id, body) = hook;
    assert_eq!((body["id"].as_str(), &body["type"]), (Some(id.as_str()), &json!("upload_settled")));
    assert_eq!(body["user_id"], json!(world.story.header.user_id));
    assert_eq!(
        body["data"],
        json!({ "upload_id": world.story.header.upload_id, "verdict": "verified", "reason": null })
    );
    assert_eq!(deliverer.round().await.unwrap(), 0, "it is told once");
    let logs = world.logs().await;
    assert_eq!(logs.len(), 1);
    let log = &logs[0];
    assert_eq!(
        (&log["service_name"], &log["success"], &log["request_id"]),
        (&json!("webhook"), &json!(true), &json!(id))
    );
    assert_eq!(log["response_data"], json!({ "status": 204 }));
    assert_eq!(log["request_data"]["url"], "http://127.0.0.1", "the path may be a secret");
    assert!(!log.to_string().contains("hidden"), "{log}");
    world.schema.drop().await;
}

#[tokio::test]
async fn a_deliverer_that_is_killed_between_sending_and_marking_leaves_the_notice_to_another_under_its_id() {
    let receiver = Receiver::new().await;
    let world = World::new(2, webhook(&format!("http://{}/", receiver.address), &["upload_settled"])).await;
    world.tell(vec![world.decided(Verdict::Verified)]).await;
    let first = world.deliverer(world.config(None, true));
    let seen = tokio::select! {
        _ = first.round() => panic!("the receiver has not responded yet"),
        hook = receiver.hook() => hook.header("webhook-id").to_owned(),
    };
    // The first is gone. Until its minute is over nobody else sends.
    let second = world.deliverer(world.config(None, true));
    assert_eq!(second.round().await.unwrap(), 0);
    world.later(61_000_000);
    let (sent, again) = tokio::join!(second.round(), async {
        let hook = receiver.hook().await;
        let id = hook.header("webhook-id").to_owned();
        hook.respond("200 OK").await;
        id
    });
    assert_eq!((sent.unwrap(), again), (1, seen));
    let rows =
        world.rows("select attempts, delivered_at is not null as delivered from notice_deliveries").await;
    assert_eq!(rows, json!([{ "attempts": 2, "delivered": true }]));
    world.schema.drop().await;
}

#[tokio::test]
async fn a_receiver_that_fails_for_a_day_is_told_nothing_more_until_its_owner_says_so() {
    let receiver = Receiver::new().await;
    let to = format!("http://{}/", receiver.address);
    let world = World::new(3, webhook(&to, &["upload_settled"])).await;
    let metrics = NoticeMetrics::register(&Metrics::new().unwrap().exporter).unwrap();
    let deliverer = world.counting(world.config(None, true), metrics.clone());
    world.tell(vec![world.decided(Verdict::Rejected)]).await;
    let fail = async || {
        let (sent, ()) =
            tokio::join!(deliverer.round(), async { receiver.hook().await.respond("500 Oops").await });
        assert_eq!(sent.unwrap(), 1);
    };
    fail().await;
    assert_eq!(deliverer.round().await.unwrap(), 0, "it waits");
    let mut attempts = 1;
    while world.rows("select 1 from notice_deliveries where given_up_at is not null").await == json!([]) {
        world.later(DAY_US / 4);
        fail().await;
        attempts += 1;
    }
    assert_eq!(attempts, 5);
    let rows = world.rows("select attempts, last_error from notice_deliveries").await;
    assert_eq!(rows, json!([{ "attempts": 5, "last_error": "refused: the receiver responds with 500" }]));
    assert_eq!(
        world.rows("select disabled_at is not null as off from notice_failures").await,
        json!([{ "off": true }])
    );
    assert_eq!(metrics.disabled.with_label_values(&["webhook"]).get(), 1);
    // A new one is not even tried.
    let again = World { story: Story::new(3, 2), ..world };
    again.tell(vec![again.decided(Verdict::Verified)]).await;
    let deliverer = again.deliverer(again.config(None, true));
    assert_eq!(deliverer.round().await.unwrap(), 1);
    let given_up = again.rows("select last_error from notice_deliveries where attempts = 1").await;
    assert!(given_up[0]["last_error"].as_str().unwrap().starts_with("not_wanted"), "{given_up}");
    again.later(1_000_000);
    again.prefers(webhook(&to, &["upload_settled"])).await;
    sqlx::query("update notice_deliveries set given_up_at = null, due_at = created_at where attempts = 1")
        .execute(&again.schema.pool)
        .await
        .unwrap();
    let (sent, ()) = tokio::join!(deliverer.round(), async { receiver.hook().await.respond("200 OK").await });
    assert_eq!(sent.unwrap(), 1);
    assert_eq!(again.rows("select * from notice_failures").await, json!([]), "it works again");
    let retries: Vec<Value> = again.logs().await.iter().map(|log| log["retry_count"].clone()).collect();
    assert_eq!(retries, [json!(0), json!(1), json!(2), json!(3), json!(4), json!(1)]);
    again.schema.drop().await;
}

#[tokio::test]
async fn a_webhook_to_an_address_inside_or_by_a_redirect_goes_nowhere() {
    let receiver = Receiver::new().await;
    let to = format!("https://localhost:{}/", receiver.address.port());
    let world = World::new(4, webhook(&to, &["upload_settled"])).await;
    world.tell(vec![world.decided(Verdict::Verified)]).await;
    let strict = world.deliverer(world.config(None, false));
    assert_eq!(strict.round().await.unwrap(), 1);
    let error = world.rows("select last_error from notice_deliveries").await;
    assert_eq!(error[0]["last_error"], "unreachable: its address is not public");
    // Where addresses inside are allowed, a redirect is still an answer and no way.
    world.prefers(webhook(&format!("http://{}/", receiver.address), &["upload_settled"])).await;
    world.later(60_000_000);
    let deliverer = world.deliverer(world.config(None, true));
    let elsewhere = Receiver::new().await;
    let (sent, ()) = tokio::join!(deliverer.round(), async {
        let status = format!("302 Found\r\nlocation: http://{}/", elsewhere.address);
        receiver.hook().await.respond(&status).await;
    });
    assert_eq!(sent.unwrap(), 1);
    let error = world.rows("select last_error from notice_deliveries").await;
    assert_eq!(error[0]["last_error"], "refused: the receiver responds with 302");
    let nobody = tokio::time::timeout(Duration::ZERO, elsewhere.listener.accept()).await;
    assert!(nobody.is_err(), "nobody came");
    world.schema.drop().await;
}

#[tokio::test]
async fn a_paid_reward_is_told_by_mail_to_the_accounts_address_and_a_refusal_is_tried_again() {
    let server = Receiver::new().await;
    let off = json!({ "enabled": false, "events": [] });
    let email = json!({ "enabled": true, "events": ["reward_paid", "security_event"] });
    let world = World::new(5, json!({ "email": email, "sms": off, "push": off, "webhook": off })).await;
    let user = world.story.header.user_id;
    let payment = Payment::of([world.story.clone()]);
    let of = |revision: i64| {
        let mut paid = payment.snapshot(0, revision);
        paid.header.occurred_at = world.clock.now();
        paid
    };
    let (paid, again) = (of(PAID_ON_A), of(PAID_ON_B));
    let event = |severity: &str| {
        let document = json!({ "user_id": user, "event_type": "token_reuse", "severity": severity });
        NoticeEvent::Logged(Box::new(ActivityLogged {
            event_id: EventId(Uuid::now_v7()),
            collection: "security_events".into(),
            ordinal: 0,
            occurred_at: world.clock.now(),
            document: document.to_string(),
        }))
    };
    let mut old = paid.clone();
    old.header.occurred_at = Micros(world.clock.now().0 - DAY_US);
    old.reward_id = RewardId(Uuid::now_v7());
    let paid = [paid, again, old].map(|event| NoticeEvent::Paid(Box::new(event)));
    world.tell([paid.to_vec(), vec![event("low")]].concat()).await;
    let deliverer = world.deliverer(world.config(Some(server.address), false));
    let (sent, said) = tokio::join!(deliverer.round(), server.mail("451 later"));
    assert_eq!(sent.unwrap(), 1, "once, and neither yesterday's nor what anybody can cause");
    assert!(!said.contains("DATA"), "{said}");
    world.later(31_000_000);
    let (_, said) = tokio::join!(deliverer.round(), server.mail("250 ok"));
    let to = format!("ada{}@example.org", &user.to_string()[..8]);
    let id = world.rows("select id from notice_deliveries").await[0]["id"].as_str().unwrap().to_owned();
    for part in [
        &format!("RCPT TO:<{to}>"),
        &format!("Message-ID: <{id}@example.org>"),
        "Subject: Your reward is paid",
        "B3TR are in your wallet",
        "https://m.example/",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    world.tell(vec![event("high")]).await;
    let (_, said) = tokio::join!(deliverer.round(), server.mail("250 ok"));
    assert!(said.contains("token_reuse (high)"), "{said}");
    let logs = world.logs().await;
    let outcomes: Vec<_> =
        logs.iter().map(|log| (log["service_name"].clone(), log["success"].clone())).collect();
    assert_eq!(outcomes, [false, true, true].map(|success| (json!("smtp"), json!(success))));
    assert!(logs.iter().all(|log| !log.to_string().contains("example.org")), "{logs:?}");
    world.schema.drop().await;
}

#[tokio::test]
async fn a_driver_is_told_once_that_a_reward_expires_and_once_that_it_has() {
    let server = Receiver::new().await;
    let off = json!({ "enabled": false, "events": [] });
    let email = json!({ "enabled": true, "events": ["reward_expiring", "reward_expired"] });
    let world = World::new(11, json!({ "email": email, "sms": off, "push": off, "webhook": off })).await;
    let payment = Payment::of([world.story.clone()]);
    let of = |state: PayoutState, reason: &str| {
        let mut event = payment.snapshot(0, PAID_ON_A);
        event.header.occurred_at = world.clock.now();
        (event.state, event.reason, event.transaction) = (state, Some(reason.to_owned()), None);
        NoticeEvent::Paid(Box::new(event))
    };
    let soon =
        of(PayoutState::Waiting, "claim_expires: claim it before 2026-03-01T00:00:00Z, or it is cancelled");
    let others = [
        of(PayoutState::Waiting, "unclaimed: the driver has not asked for the reward yet"),
        of(PayoutState::Cancelled, "cancelled: an operator says so"),
    ];
    world.tell([vec![soon.clone(), soon], others.to_vec()].concat()).await;
    let deliverer = world.deliverer(world.config(Some(server.address), false));
    let (sent, said) = tokio::join!(deliverer.round(), server.mail("250 ok"));
    assert_eq!(sent.unwrap(), 1, "once, and nothing else is told");
    for part in ["Subject: A reward waits for you", "claim it before 2026-03-01T00:00:00Z"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    world
        .tell(vec![of(
            PayoutState::Cancelled,
            "claim_expired: it was not claimed before 2026-03-01T00:00:00Z",
        )])
        .await;
    let (sent, said) = tokio::join!(deliverer.round(), server.mail("250 ok"));
    assert_eq!(sent.unwrap(), 1);
    assert!(said.contains("Subject: A reward is cancelled"), "{said}");
    world.schema.drop().await;
}

#[tokio::test]
async fn whoever_a_vehicle_is_offered_to_is_told_once_where_the_wallet_belongs_to_an_account() {
    let server = Receiver::new().await;
    let off = json!({ "enabled": false, "events": [] });
    let email = json!({ "enabled": true, "events": ["vehicle_offered"] });
    let world = World::new(12, json!({ "email": email, "sms": off, "push": off, "webhook": off })).await;
    let of_vehicle =
        "('00000000-0000-0000-0000-00000000000' || n)::uuid, '00000000-0000-0000-0000-0000000000aa'::uuid";
    for statement in [
        "insert into users (id) values ('00000000-0000-0000-0000-0000000000aa')".to_owned(),
        format!("insert into vehicles (id, user_id, kind) select {of_vehicle}, 'petrol' from generate_series(1, 3) n"),
        "insert into user_wallets (id, user_id, wallet_address, wallet_type, network, verified_at)
         select gen_random_uuid(), id, '0x' || repeat('1', 40), 'vechain', 'testnet', now() from users where email is not null"
            .to_owned(),
        format!(
            "insert into vehicle_transfers (id, vehicle_id, from_user, to_address, created_at, expires_at)
             select gen_random_uuid(), {of_vehicle}, '0x' || repeat(wallet, 40), now() - age, now() + interval '7 days'
             from (values (1, '1', interval '0'), (2, '2', interval '0'), (3, '1', interval '25 hours')) v (n, wallet, age)"
        ),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&world.schema.pool).await.unwrap();
    }
    let deliverer = world.deliverer(world.config(Some(server.address), false));
    world.later(1_000_000);
    let (sent, said) = tokio::join!(deliverer.round(), server.mail("250 ok"));
    assert_eq!(sent.unwrap(), 1, "neither a stranger's wallet nor what was offered the day before");
    assert!(said.contains("Subject: A vehicle is offered to you"), "{said}");
    assert!(!said.contains(&"1".repeat(40)), "it names no wallet: {said}");
    assert_eq!(deliverer.round().await.unwrap(), 0, "it is told once");
    let untold = world.rows("select id from vehicle_transfers where told_at is null").await;
    assert_eq!(untold, json!([]));
    world.schema.drop().await;
}

#[tokio::test]
async fn an_offer_that_cannot_be_told_keeps_no_notice_waiting_and_is_given_up() {
    let server = Receiver::new().await;
    let off = json!({ "enabled": false, "events": [] });
    let email = json!({ "enabled": true, "events": ["vehicle_offered"] });
    let world = World::new(12, json!({ "email": email, "sms": off, "push": off, "webhook": off })).await;
    // The first is made to an account whose preferences no gateway has written.
    for statement in [
        "insert into users (id) values ('00000000-0000-0000-0000-0000000000aa')",
        r#"insert into user_preferences (id, user_id, notification_preferences)
           values ('00000000-0000-0000-0000-0000000000aa', '00000000-0000-0000-0000-0000000000aa', '{"email": {"enabled": "perhaps", "events": ["vehicle_offered"]}}')"#,
        "insert into vehicles (id, user_id, kind)
         select ('00000000-0000-0000-0000-00000000000' || n)::uuid, '00000000-0000-0000-0000-0000000000aa', 'petrol'
         from generate_series(1, 2) n",
        "insert into user_wallets (id, user_id, wallet_address, wallet_type, network, verified_at)
         select gen_random_uuid(), id, '0x' || repeat(case when email is null then '2' else '1' end, 40), 'vechain', 'testnet', now()
         from users",
        "insert into vehicle_transfers (id, vehicle_id, from_user, to_address, created_at, expires_at)
         select gen_random_uuid(), ('00000000-0000-0000-0000-00000000000' || n)::uuid, '00000000-0000-0000-0000-0000000000aa',
            '0x' || repeat((3 - n)::text, 40), now() - (3 - n) * interval '1 minute', now() + interval '7 days'
         from generate_series(1, 2) n",
    ] {
        sqlx::query(statement).execute(&world.schema.pool).await.unwrap();
    }
    let deliverer = world.deliverer(world.config(Some(server.address), false));
    world.later(1_000_000);
    let (sent, said) = tokio::join!(deliverer.round(), server.mail("250 ok"));
    assert_eq!(sent.unwrap(), 1);
    assert!(said.contains("Subject: A vehicle is offered to you"), "{said}");
    assert_eq!(deliverer.round().await.unwrap(), 0);
    let untold = world.rows("select id from vehicle_transfers where told_at is null").await;
    assert_eq!(untold, json!([]));
    world.schema.drop().await;
}

/// The code in what a mail client has said.
fn code_in(said: &str) -> OneTimeCode {
    let line = said.lines().find_map(|line| line.strip_prefix("Your code: "));
    OneTimeCode::typed(line.unwrap_or_else(|| panic!("{said}"))).unwrap()
}

/// Off but for e-mails about rewards and accounts.
fn by_mail(to: Option<&str>) -> Value {
    let off = json!({ "enabled": false, "events": [] });
    let mut email = json!({ "enabled": true, "events": ["reward_paid", "security_event", "upload_settled"] });
    if let Some(to) = to {
        email["to"] = json!(to);
    }
    json!({ "email": email, "sms": off, "push": off, "webhook": off })
}

#[tokio::test]
async fn nothing_but_a_code_is_sent_to_an_address_that_is_not_proven() {
    let server = Receiver::new().await;
    let world = World::new(7, by_mail(None)).await;
    let deliverer = world.deliverer(world.config(Some(server.address), false));
    let given_up = async |why: &str| {
        assert_eq!(deliverer.round().await.unwrap(), 1);
        let rows = world.rows("select last_error from notice_deliveries where given_up_at is not null").await;
        let told = rows[0]["last_error"].as_str().unwrap();
        assert!(told.starts_with("not_proven: ") && told.contains(why), "{rows}");
    };
    world.run("update users set email_verified_at = null").await;
    world.tell(vec![world.decided(Verdict::Verified)]).await;
    given_up("by a code").await;
    // The account's own address is proven, and the preferences name another one.
    world.run("update users set email_verified_at = now()").await;
    world.prefers(by_mail(Some("somebody.else@example.net"))).await;
    world.run("update notice_deliveries set given_up_at = null, due_at = created_at").await;
    given_up("of the preferences").await;
    let nobody = tokio::time::timeout(Duration::ZERO, server.listener.accept()).await;
    assert!(nobody.is_err(), "nobody came");
    // The same address in other letters is the account's.
    let own = format!("ADA{}@Example.org", &world.story.header.user_id.to_string()[..8]);
    world.prefers(by_mail(Some(&own))).await;
    world.run("update notice_deliveries set given_up_at = null, due_at = created_at").await;
    let (sent, said) = tokio::join!(deliverer.round(), server.mail("250 ok"));
    assert_eq!(sent.unwrap(), 1);
    assert!(said.contains("Subject: Your photo is decided"), "{said}");
    world.schema.drop().await;
}

#[tokio::test]
async fn a_code_is_drawn_as_it_is_sent_and_kept_as_its_hash_alone() {
    let server = Receiver::new().await;
    let world = World::new(8, by_mail(None)).await;
    world.run("update users set email_verified_at = null").await;
    world.asks_for_a_code().await;
    let deliverer = world.deliverer(world.config(Some(server.address), false));
    // The server refuses at first: another code is drawn for the second attempt.
    let (sent, _) = tokio::join!(deliverer.round(), server.mail("451 later"));
    assert_eq!(sent.unwrap(), 1);
    let refused =
        world.rows("select code_hash, last_error, due_at is not null as waits from email_codes").await;
    assert_eq!(
        (&refused[0]["last_error"], &refused[0]["waits"]),
        (&json!("refused: the mail server refuses with 451"), &json!(true))
    );
    assert_eq!(deliverer.round().await.unwrap(), 0, "it waits");
    world.later(20_000_000);
    let (sent, said) = tokio::join!(deliverer.round(), server.mail("250 ok"));
    assert_eq!(sent.unwrap(), 1);
    let address = format!("ada{}@example.org", &world.story.header.user_id.to_string()[..8]);
    for part in
        [&format!("RCPT TO:<{address}>"), "Subject: Your code", "good for ten minutes", "https://m.example/"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let code = code_in(&said);
    assert!(!said.lines().any(|line| line.starts_with("Subject") && line.contains(code.expose())));
    let (salt, hash): (Vec<u8>, Vec<u8>) = sqlx::query_as("select salt, code_hash from email_codes")
        .fetch_one(&world.schema.pool)
        .await
        .unwrap();
    assert!(code.proves(&address, &salt, &hash));
    let kept = world.rows("select * from email_codes").await;
    assert_ne!(kept[0]["code_hash"], refused[0]["code_hash"]);
    assert_eq!(
        (&kept[0]["due_at"], &kept[0]["last_error"], &kept[0]["tries"]),
        (&json!(null), &json!(null), &json!(0))
    );
    // Sent once; neither the table nor the log has the code or the address.
    assert_eq!(deliverer.round().await.unwrap(), 0);
    let logs = world.logs().await;
    let outcomes: Vec<_> =
        logs.iter().map(|log| (log["success"].clone(), log["retry_count"].clone())).collect();
    assert_eq!(outcomes, [(json!(false), json!(0)), (json!(true), json!(1))]);
    assert_eq!(logs[1]["request_data"]["summary"], "email_code");
    let all = format!("{logs:?} {kept}");
    assert!(!all.contains(code.expose()) && !all.contains("example.org"), "{all}");
    world.schema.drop().await;
}

#[tokio::test]
async fn a_code_that_cannot_be_sent_is_given_up_with_the_reason() {
    let world = World::new(9, by_mail(None)).await;
    world.run("update users set email_verified_at = null").await;
    let why = async |deliverer: Deliverer| {
        assert_eq!(deliverer.round().await.unwrap(), 1);
        let rows = world.rows("select due_at, code_hash, last_error from email_codes").await;
        assert_eq!((&rows[0]["due_at"], &rows[0]["code_hash"]), (&json!(null), &json!(null)));
        rows[0]["last_error"].as_str().unwrap().split(':').next().unwrap().to_owned()
    };
    let with_server = || world.deliverer(world.config(Some(([127, 0, 0, 1], 1).into()), false));
    world.asks_for_a_code().await;
    assert_eq!(why(world.deliverer(world.config(None, false))).await, "no_server");
    world.asks_for_a_code().await;
    world.later(600_000_000);
    assert_eq!(why(with_server()).await, "too_late");
    world.asks_for_a_code().await;
    world.run("update users set email_verified_at = now()").await;
    assert_eq!(why(with_server()).await, "proven");
    world.asks_for_a_code().await;
    world.run("update users set email = null").await;
    assert_eq!(why(with_server()).await, "no_target");
    world.schema.drop().await;
}

#[tokio::test]
async fn a_review_is_told_to_its_driver_and_to_reviewers_who_want_it() {
    let receiver = Receiver::new().await;
    let world = World::new(6, webhook(&format!("http://{}/", receiver.address), &["review_needed"])).await;
    for role in ["reviewer", "driver"] {
        sqlx::query(
            "with u as (insert into users (id, role) values ($1, $2) returning id)
             insert into user_preferences (id, user_id, notification_preferences) select id, id, $3 from u",
        )
        .bind(Uuid::now_v7())
        .bind(role)
        .bind(webhook("https://hooks.example/", &["review_needed"]))
        .execute(&world.schema.pool)
        .await
        .unwrap();
    }
    world.tell(vec![world.decided(Verdict::Review)]).await;
    let told = world
        .rows("select role from notice_deliveries d join users u on u.id = d.user_id order by role")
        .await;
    assert_eq!(told, json!([{ "role": "driver" }, { "role": "reviewer" }]));
    sqlx::query(
        "insert into system_config (id, environment, feature_flags) values ($1, 'production', '{\"notifications\": false}')",
    )
    .bind(Uuid::now_v7())
    .execute(&world.schema.pool)
    .await
    .unwrap();
    let deliverer = world.deliverer(world.config(None, true));
    assert_eq!(deliverer.round().await.unwrap(), 0, "notices wait while the flag is off");
    world.schema.drop().await;
}
