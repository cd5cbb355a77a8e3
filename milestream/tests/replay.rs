//! `milestream replay`, run as an operator runs it, beside real stages that go on deciding.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod own;
#[path = "own/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::deployment::RoleSpec;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::snapshot;
use rust_decimal::Decimal;
use schemas::events::{
    Correction, OdometerRead, ReadingCorrected, RewardCancelled, RewardGranted, UploadAbandoned,
    UploadDecided, Verdict,
};
use schemas::ids::{Micros, UserId, derived};
use schemas::topic::Topic;
use serde_json::Value;
use uuid::Uuid;

use world::{TIMEOUT, World, is_unsure, photo, reviewed, series};

/// Drivers of petrol cars, and behind them one of an electric car who drives as far as the budgets hold.
const DRIVERS: u128 = 8;
/// The window: the days from the one to before the other.
const WINDOW: (i64, i64) = (4, 10);
const RULES: &str = include_str!("../../processors/src/reward_rules/first.toml");

/// Some days of all drivers, accepted, read and looked at; every photo comes twice. The photos that are hard to read of the window's last
/// day are looked at a day after its end.
fn days(world: &World, from: i64, to: i64) {
    let photos = world.accept(series(DRIVERS, from..to));
    let last = photo(1, WINDOW.1 - 1).header.accepted_at;
    let (mut records, mut late) = (Vec::new(), Vec::new());
    for photo in &photos {
        records.push(photo.clone());
        if is_unsure(photo) {
            let reviews = if photo.header.accepted_at == last { &mut late } else { &mut records };
            reviews.push(reviewed(photo));
        }
        records.push(photo.clone());
    }
    records.extend(late);
    world.publish(&records);
}

/// What operators do: a verified reading of the window is lowered, one is refused, a reward of the driver who is near the budgets is
/// cancelled, and an upload that was never read is ended; its reading comes all the same. And a record comes that does not decode.
fn operators(world: &World) {
    let lost = world.accept(vec![photo(DRIVERS + 2, 5)]);
    let ends = lost.iter().map(|OdometerRead { header, stamp, .. }| {
        let (root, said) = (header.root.unwrap(), ("the photo is lost".to_owned(), None));
        UploadAbandoned::of((header.clone(), stamp.clone()), said, ("test", header.accepted_at, root))
    });
    world.publish(&ends.collect::<Vec<_>>());
    world.publish(&lost);
    let decided: Vec<UploadDecided> = world.events();
    let verified = |driver: u128, n: i64| {
        let upload = photo(driver, n).header.upload_id;
        let found = decided.iter().find(|e| e.header.upload_id == upload && e.verdict == Verdict::Verified);
        found.unwrap().clone()
    };
    let lowered = |driver: u128, by: i64| {
        let decided = verified(driver, 5);
        let mileage_before = decided.final_mileage.unwrap();
        let mileage = mileage_before - Decimal::from(by);
        let correction = Correction { number: 1, mileage_before, mileage, corrected_at: Micros(1) };
        ReadingCorrected::of(decided, correction)
    };
    world.publish(&[lowered(1, 10), lowered(2, 1_000)]);
    let grants: Vec<RewardGranted> = world.events();
    let upload = photo(DRIVERS + 1, 5).header.upload_id;
    let grant = grants.iter().find(|grant| grant.header.upload_id == upload).unwrap();
    let mut header = grant.header.clone();
    header.event_id = derived(header.event_id, "cancelled", 0);
    let (reward_id, granted) = (grant.reward_id, grant.granted);
    world.publish(&[RewardCancelled { header, reward_id, granted, reason: "a test".into() }]);
    world.runtime.block_on(async {
        let producer: FutureProducer = world.kafka().create().unwrap();
        let topic = world.name(Topic::UploadsReadings);
        producer.send(FutureRecord::to(&topic).key("k").payload(b"garbage"), TIMEOUT).await.unwrap();
    });
}

/// The instant at which a day's photos are accepted, as an argument.
fn instant(n: i64) -> String {
    photo(1, n).header.accepted_at.to_utc().to_rfc3339()
}

fn replay(into: &str, others: &[&str]) -> Vec<String> {
    let window = ["replay", "--from", &instant(WINDOW.0), "--to", &instant(WINDOW.1), "--into", into];
    window.iter().chain(others).map(|&argument| argument.to_owned()).collect()
}

fn told(world: &World, arguments: &[String]) -> Result<String, String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    world.deployment.command(&arguments).map_err(|error| error.to_string())
}

fn refused(world: &World, arguments: &[String], why: &str) {
    let said = told(world, arguments).unwrap_err();
    assert!(said.contains(why), "{arguments:?}: {said}");
}

/// Starts it slowly, and kills it where some partitions are decided.
fn killed_midway(world: &World, into: &str) {
    let mut killed = Command::new(env!("CARGO_BIN_EXE_milestream"))
        .args(replay(into, &["--rate", "150"]))
        .envs(world.deployment.environment().iter().cloned())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + TIMEOUT;
    let progress = format!("select count(*) from replay_{into}.replay_progress");
    loop {
        assert!(Instant::now() < until, "it decides nothing");
        let decided = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(progress.clone()));
        if world.runtime.block_on(decided.fetch_one(&world.pool)).is_ok_and(|partitions| partitions > 0) {
            break;
        }
        assert!(killed.try_wait().unwrap().is_none(), "it has come to an end");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    refused(world, &replay(into, &["--rate", "150"]), "is running already");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let report = told(world, &["replay", "report", into].map(str::to_owned)).unwrap();
    assert!(report.contains("it has not come to its end"), "{report}");
}

/// Everything that is live: each table's rows, and each topic's ends.
fn live(world: &World) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    world.runtime.block_on(async {
        let tables: Vec<String> =
            sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public'")
                .fetch_all(&world.pool)
                .await
                .unwrap();
        for table in tables {
            let sql = format!(
                "select md5(coalesce(string_agg(t::text, '' order by t::text), '')) from public.{table} t"
            );
            let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&world.pool).await.unwrap();
            found.insert(table, rows);
        }
    });
    for topic in Topic::ALL {
        let ends = snapshot::since(&world.kafka(), &world.name(topic), 0).unwrap();
        found.insert(topic.name().to_owned(), format!("{ends:?}"));
    }
    found
}

/// Topics and schemas of replays.
fn shadows(world: &World) -> (Vec<String>, i64) {
    let consumer: BaseConsumer = world.kafka().create().unwrap();
    let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
    let begins = format!("{}replay_", world.prefix);
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    let names = names.filter(|name| name.starts_with(&begins)).collect();
    (names, world.number("select count(*) from pg_namespace where nspname like 'replay\\_%'"))
}

fn file(world: &World, name: &str) -> (PathBuf, String) {
    let path = world.stack.folder().join(format!("{}{name}", world.prefix));
    let text = path.display().to_string();
    (path, text)
}

/// What the petrol cars' rewards of the window were, by their decision.
fn rewards(world: &World) -> BTreeMap<String, Decimal> {
    let grants: Vec<RewardGranted> = world.events();
    let day = |n: i64| photo(1, n).header.accepted_at;
    let of_petrol = |grant: &&RewardGranted| {
        let at = grant.header.accepted_at;
        grant.header.user_id != UserId(Uuid::from_u128(DRIVERS + 1))
            && (day(WINDOW.0)..day(WINDOW.1)).contains(&at)
    };
    let by_upload = grants.iter().filter(of_petrol);
    by_upload.map(|grant| (grant.header.upload_id.to_string(), grant.granted)).collect()
}

/// With twice the rate of petrol, and with nothing else that is different.
fn with_another_rate(world: &World) {
    let (path, rules_file) = file(world, "rules.toml");
    std::fs::write(
        &path,
        RULES.replace("version = \"1\"", "version = \"2\"").replace("\"0.01\"", "\"0.02\""),
    )
    .unwrap();
    let ((json_path, json), (html_path, html)) = (file(world, "report.json"), file(world, "report.html"));
    let before = live(world);
    let arguments = replay("dearer", &["--rules", &rules_file, "--json", &json, "--html", &html]);
    let text = told(world, &arguments).unwrap();
    assert_eq!(live(world), before, "nothing that is live is written");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json_path).unwrap()).unwrap();
    let differences = report["differences"].as_array().unwrap();
    let wanted = rewards(world);
    assert_eq!(wanted.len(), usize::try_from(DRIVERS).unwrap() * 5, "{wanted:?}");
    let found: BTreeMap<String, Decimal> = differences
        .iter()
        .map(|one| {
            let amount = |of: &str, what: &str| one[of][what].as_str().unwrap().parse::<Decimal>().unwrap();
            for what in ["verdict", "reason", "mileage", "distance_km", "grant_reason"] {
                assert_eq!(one["recorded"][what], one["replayed"][what], "{one}");
            }
            assert_eq!(amount("replayed", "granted"), amount("recorded", "granted") * Decimal::TWO);
            assert_eq!(amount("replayed", "calculated"), amount("recorded", "calculated") * Decimal::TWO);
            (one["upload_id"].as_str().unwrap().to_owned(), amount("recorded", "granted"))
        })
        .collect();
    assert_eq!((found.len(), &found), (differences.len(), &wanted));
    let moved: Decimal = wanted.values().sum();
    assert!(text.contains(&format!(", +{}\n", moved.normalize())), "{text}");
    assert!(std::fs::read_to_string(html_path).unwrap().contains("<td>granted</td>"));
    refused(world, &replay("dearer", &[]), "replay dearer was begun with other arguments");
    let shadow: Vec<RewardGranted> = {
        let records =
            snapshot::read(&world.kafka(), &format!("{}replay_dearer.rewards.granted", world.prefix))
                .unwrap();
        let decoded = records.iter().map(|record| {
            let (id, datum) = schemas::codec::unframe(record.payload.as_deref().unwrap()).unwrap();
            schemas::codec::decode(<RewardGranted as schemas::events::Event>::schema(), id, datum).unwrap()
        });
        decoded.collect()
    };
    let of = |upload: &str| {
        shadow.iter().find(|grant| grant.header.upload_id.to_string() == upload).unwrap().granted
    };
    assert!(wanted.iter().all(|(upload, granted)| of(upload) == granted * Decimal::TWO));
}

/// Payouts of the petrol cars' rewards of the window, as `chain_submission` makes them; one is paid. Returns what is open, B3TR.
fn owed(world: &World) -> Decimal {
    let wanted = rewards(world);
    let grants: Vec<RewardGranted> = world.events();
    let mut open = Decimal::ZERO;
    for (at, grant) in
        grants.iter().filter(|grant| wanted.contains_key(&grant.header.upload_id.to_string())).enumerate()
    {
        let state = if at == 0 { "paid" } else { "waiting" };
        open += if at == 0 { Decimal::ZERO } else { grant.granted };
        let insert = sqlx::query(
            "insert into payouts (reward_id, user_id, amount_wei, state, header, stamp, updated_at)
             values ($1, $2, $3 * 1000000000000000000::numeric, $4, $5, $6, now())",
        )
        .bind(grant.reward_id.0)
        .bind(grant.header.user_id.0)
        .bind(grant.granted)
        .bind(state)
        .bind(serde_json::to_value(&grant.header).unwrap())
        .bind(serde_json::to_value(&grant.stamp).unwrap());
        world.runtime.block_on(insert.execute(&world.pool)).unwrap();
    }
    open
}

/// B3TR that all drivers are charged for, by the day.
fn charged(world: &World) -> Decimal {
    let sum = "select coalesce(sum(current_amount), 0) from reward_limits where limit_type = 'daily'";
    world.runtime.block_on(sqlx::query_scalar(sum).fetch_one(&world.pool)).unwrap()
}

/// With a rate of nothing for petrol, which is carried over into the books.
fn promoted(world: &mut World) {
    let (path, rules_file) = file(world, "free.toml");
    std::fs::write(&path, RULES.replace("\"1\"", "\"3\"").replace("\"0.01\"", "\"0\"")).unwrap();
    let promote = ["replay", "promote", "free", "--reason", "the rate was wrong"].map(str::to_owned);
    refused(world, &promote, "there is no replay free");
    let report = told(world, &replay("free", &["--rules", &rules_file])).unwrap();
    let (wanted, open) = (rewards(world), owed(world));
    let total: Decimal = wanted.values().sum();
    let says = format!("promoting it cancels {} rewards of {} B3TR", wanted.len(), total.normalize());
    assert!(report.contains(&says), "{report}");

    let before = charged(world);
    world.deployment.start(RoleSpec::ingest()).unwrap();
    refused(world, &promote, "1 rewards stay as they are");
    let cancelled = i64::try_from(wanted.len()).unwrap() - 1;
    assert_eq!(world.number("select count(*) from payouts where state = 'cancelled'"), cancelled);
    assert_eq!(world.number("select count(*) from payouts where state = 'paid'"), 1);
    assert_eq!(
        world.number("select count(*) from system_audit_logs where action = 'replay.promote'"),
        cancelled
    );
    let until = Instant::now() + TIMEOUT;
    // One was cancelled before, by an operator.
    while world.number("select count(*) from limit_refunds") < cancelled + 1 {
        assert!(Instant::now() < until, "the cancellations do not arrive");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert_eq!(before - charged(world), open, "the books move by what the report says, but for what is paid");
    refused(world, &promote, "1 rewards stay as they are");
    world.settle();
    assert_eq!(before - charged(world), open, "and once");
}

fn what_cannot_be_is_refused(world: &World) {
    let with = |arguments: &[&str]| -> Vec<String> { arguments.iter().map(|&one| one.to_owned()).collect() };
    let (early, late) = (instant(4), instant(10));
    refused(
        world,
        &with(&["replay", "--from", &late, "--to", &early, "--into", "a"]),
        "is not behind its beginning",
    );
    let future = "2999-01-01T00:00:00Z";
    refused(
        world,
        &with(&["replay", "--from", &early, "--to", future, "--into", "a"]),
        "it has to lie in the past",
    );
    refused(world, &replay("A;drop", &[]), "lower-case letters, digits and underscores");
    refused(
        world,
        &replay("a", &["--stages", "fraud_check,limit_check"]),
        "reward_calculation stands between",
    );
    refused(world, &replay("a", &["--rate", "0"]), "--rate");
    let (path, rules) = file(world, "bad.toml");
    std::fs::write(&path, RULES.replace("upload_cap = \"20\"", "upload_cap = \"-20\"")).unwrap();
    refused(world, &replay("a", &["--rules", &rules]), "bad.toml:4: ");
    refused(world, &with(&["replay", "report", "a"]), "there is no replay a");
    refused(world, &with(&["replay", "drop", "a"]), "there is no replay a");
    assert_eq!(shadows(world), (Vec::new(), 0), "nothing was made of them");
}

#[test]
fn a_window_decided_again_beside_live_traffic_differs_in_nothing_and_by_another_rate_in_exactly_its_rewards()
{
    let mut world = World::new("replayed");
    let users = "insert into users (id) select ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid from generate_series(1, 12) n";
    world.execute(users.to_owned());
    what_cannot_be_is_refused(&world);
    world.start();
    days(&world, 0, 6);
    world.settle();
    operators(&world);
    world.settle();
    days(&world, 6, 14);
    world.settle();
    let grants: Vec<RewardGranted> = world.events();
    assert!(grants.iter().any(|grant| grant.reason.is_some()), "the budgets are met");
    // The fifth reward of the week has used its budget up, and was cancelled.
    let sunday = photo(DRIVERS + 1, 6).header.upload_id;
    let granted = grants.iter().find(|grant| grant.header.upload_id == sunday).unwrap().granted;
    assert_eq!(granted, Decimal::from(20), "what was refunded is granted again");

    killed_midway(&world, "same");
    days(&world, 14, 16);
    let report = told(&world, &replay("same", &[])).unwrap();
    // Of six days one is hard to read by everybody and one late: photo and review; the correction, one that is refused, and the end of an
    // upload.
    let (uploads, decisions) = ((DRIVERS + 1) * 6 + 1, (DRIVERS + 1) * 8 + 3);
    let counts =
        format!("{uploads} uploads, {uploads} of them decided; {decisions} decisions compared: 0 differ");
    assert!(report.contains(&counts), "{report}");
    assert!(report.contains(", +0\n") || report.ends_with(", +0"), "{report}");
    world.settle();

    let rewarded = told(&world, &replay("rewards", &["--stages", "reward_calculation,limit_check"])).unwrap();
    assert!(rewarded.contains("decisions compared: 0 differ"), "{rewarded}");
    with_another_rate(&world);
    let listed = told(&world, &["replay", "list"].map(str::to_owned)).unwrap();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.lines().any(|line| line.starts_with("same ") && line.ends_with("0 differ")), "{listed}");
    promoted(&mut world);
    let after = told(&world, &replay("after", &[])).unwrap();
    assert!(after.contains(&format!("{decisions} decisions compared: 0 differ")), "{after}");
    assert_eq!(shadows(&world).0.len(), 15);
    for name in ["same", "rewards", "dearer", "free", "after"] {
        told(&world, &["replay", "drop", name].map(str::to_owned)).unwrap();
    }
    let until = Instant::now() + TIMEOUT;
    while shadows(&world) != (Vec::new(), 0) {
        assert!(Instant::now() < until, "{:?}", shadows(&world));
        std::thread::park_timeout(Duration::from_millis(200));
    }
    world.deployment.stop();
    world.stack.stop();
}
