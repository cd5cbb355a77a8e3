//! `milestream replay promote`, run as an operator runs it, on books that real roles keep.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod own;
#[path = "own/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::deployment::RoleSpec;
use rust_decimal::Decimal;
use schemas::events::RewardGranted;
use schemas::ids::{RewardId, UploadId};
use serde_json::Value;
use uuid::Uuid;

use own::Own;
use world::{TIMEOUT, World, is_unsure, photo, reviewed, series};

/// Drivers of petrol cars, and behind them one of an electric car who drives as far as the budgets of a week hold.
const DRIVERS: u128 = 3;
/// From Tuesday to Sunday of one week.
const WINDOW: (i64, i64) = (1, 7);
const RULES: &str = include_str!("../../processors/src/reward_rules/first.toml");
const AUDITED: &str = "select count(*) from system_audit_logs where action = 'replay.promote'";
/// A network that nobody signs for: `chain_submission` keeps its books without a key.
const CHAIN: [(&str, &str); 2] = [
    ("MILESTREAM_CHAIN__GENESIS_ID", "0x00000000bb55405beed90df9fea5acdb1cb7caba61b0d7513395f42efd30e558"),
    ("MILESTREAM_CHAIN__WATCH_SECRET", "a secret of a test, of forty characters."),
];

/// Some days of all drivers, accepted, read and, where they are hard to read, looked at.
fn days(world: &World, from: i64, to: i64) {
    let photos = world.accept(series(DRIVERS, from..to));
    let mut records = Vec::new();
    for photo in &photos {
        records.push(photo.clone());
        if is_unsure(photo) {
            records.push(reviewed(photo));
        }
    }
    world.publish(&records);
}

/// What the books say in every place, B3TR.
#[derive(Clone, Debug, PartialEq)]
struct Books {
    /// Payouts, rewards, drivers' totals, and what is charged to days, weeks and months.
    owed: [Decimal; 6],
    /// What analytics has counted as granted.
    granted: Decimal,
}

fn books(world: &World) -> Books {
    let sum = |sql: &'static str| -> Decimal {
        let sum = sqlx::query_scalar::<_, Decimal>(sql).fetch_one(&world.pool);
        world.runtime.block_on(sum).unwrap().normalize()
    };
    Books {
        owed: [
            "select coalesce(sum(amount_wei), 0) / 1000000000000000000 from payouts where state <> 'cancelled'",
            "select coalesce(sum(granted_amount), 0) from rewards where status <> 'cancelled'",
            "select coalesce(sum(total_rewards), 0) from users",
            "select coalesce(sum(current_amount), 0) from reward_limits where limit_type = 'daily'",
            "select coalesce(sum(current_amount), 0) from reward_limits where limit_type = 'weekly'",
            "select coalesce(sum(current_amount), 0) from reward_limits where limit_type = 'monthly'",
        ]
        .map(sum),
        granted: sum(
            "select coalesce(sum(exact_value), 0) from analytics_data
             where metric_name = 'rewards_granted' and time_period = 'year' and user_id is null and dimension = '{}'",
        ),
    }
}

/// Waits until every place says this.
fn until_owed(world: &World, owed: Decimal, granted: Decimal) -> Books {
    let wanted = Books { owed: [owed.normalize(); 6], granted: granted.normalize() };
    let until = Instant::now() + TIMEOUT;
    loop {
        let found = books(world);
        if found == wanted {
            return found;
        }
        assert!(Instant::now() < until, "{found:?} instead of {wanted:?}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

fn told(world: &World, arguments: &[&str]) -> Result<String, String> {
    world.deployment.command(arguments).map_err(|error| error.to_string())
}

/// A replay by these rules; of each upload whose grant differs what was recorded, and what the replay has made of it.
fn replayed(world: &World, name: &str, rules: &str) -> (String, BTreeMap<Uuid, (Decimal, Decimal)>) {
    let folder = world.stack.folder();
    let (file, json) = (
        folder.join(format!("{}{name}.toml", world.prefix)),
        folder.join(format!("{}{name}.json", world.prefix)),
    );
    std::fs::write(&file, rules.replace("version = \"1\"", &format!("version = \"{name}\""))).unwrap();
    let instant = |n: i64| photo(1, n).header.accepted_at.to_utc().to_rfc3339();
    let (from, to) = (instant(WINDOW.0), instant(WINDOW.1));
    let (file, json) = (file.display().to_string(), json.display().to_string());
    let arguments =
        ["replay", "--from", &from, "--to", &to, "--into", name, "--rules", &file, "--json", &json];
    let text = told(world, &arguments).unwrap();
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let amount = |of: &Value| of["granted"].as_str().map_or(Decimal::ZERO, |text| text.parse().unwrap());
    let differences = report["differences"].as_array().unwrap().iter();
    let moved = differences
        .map(|one| {
            let upload: Uuid = one["upload_id"].as_str().unwrap().parse().unwrap();
            (upload, (amount(&one["recorded"]), amount(&one["replayed"])))
        })
        .collect();
    (text, moved)
}

fn difference(moved: &BTreeMap<Uuid, (Decimal, Decimal)>) -> Decimal {
    moved.values().map(|(was, is)| is - was).sum()
}

fn reward_of(driver: u128, n: i64) -> Uuid {
    RewardId::of(photo(driver, n).header.upload_id).0
}

/// The chain has paid it: no command can move it any more.
fn paid(world: &World, driver: u128, n: i64) {
    world.execute(format!("update payouts set state = 'paid' where reward_id = '{}'", reward_of(driver, n)));
}

/// What the topic says last of each upload's reward.
fn newest(world: &World) -> BTreeMap<Uuid, Decimal> {
    let grants: Vec<RewardGranted> = world.events();
    grants.iter().map(|grant| (grant.header.upload_id.0, grant.granted.normalize())).collect()
}

/// What each payout is owed.
fn payouts(world: &World) -> BTreeMap<Uuid, Decimal> {
    let rows = sqlx::query_as::<_, (Uuid, Decimal)>(
        "select (header->>'upload_id')::uuid, amount_wei / 1000000000000000000 from payouts where state <> 'cancelled'",
    );
    let rows = world.runtime.block_on(rows.fetch_all(&world.pool)).unwrap();
    rows.into_iter().map(|(upload, amount)| (upload, amount.normalize())).collect()
}

/// Starts promoting, and kills it wherever it is once something is done.
fn killed_midway(world: &World, name: &str) {
    let mut killed = Command::new(env!("CARGO_BIN_EXE_milestream"))
        .args(["replay", "promote", name, "--reason", "the rate was wrong"])
        .envs(world.deployment.environment().iter().cloned())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + TIMEOUT;
    while world.number(AUDITED) == 0 {
        assert!(Instant::now() < until && killed.try_wait().unwrap().is_none(), "it promotes nothing");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
}

/// Half the rate: all is lowered, but for a reward that is paid, and where the budget has cut it there is something now. Returns by how
/// much the books have moved.
fn halved(world: &mut World, granted: Decimal, sunday: UploadId) -> Decimal {
    let half = RULES.replace("\"0.01\"", "\"0.005\"").replace("\"0.025\"", "\"0.0125\"");
    let (text, moved) = replayed(world, "half", &half);
    assert_eq!(moved.len(), usize::try_from(DRIVERS + 1).unwrap() * 6, "{text}");
    let by = |raises: bool| -> (usize, Decimal) {
        let of = moved.values().filter(|(was, is)| (is > was) == raises).map(|(was, is)| (is - was).abs());
        (of.clone().count(), of.sum::<Decimal>().normalize())
    };
    let (lowers, raises) = (by(false), by(true));
    assert!(
        text.contains(&format!("promoting it lowers {} rewards by {} B3TR", lowers.0, lowers.1)),
        "{text}"
    );
    assert_eq!((raises.0, moved[&sunday.0].0), (1, Decimal::ZERO));
    assert!(text.contains(&format!("promoting it raises 1 rewards by {} B3TR", raises.1)), "{text}");
    paid(world, 1, 1);
    let stays = moved[&photo(1, 1).header.upload_id.0];
    killed_midway(world, "half");
    let promote = ["replay", "promote", "half", "--reason", "the rate was wrong"];
    let said = told(world, &promote).unwrap_err();
    assert!(said.contains("1 rewards stay as they are"), "{said}");
    let by = difference(&moved) - (stays.1 - stays.0);
    let after = until_owed(world, granted + by, granted + by);
    for (upload, (was, is)) in &moved {
        let owed = if *upload == photo(1, 1).header.upload_id.0 { was } else { is };
        assert_eq!(payouts(world).get(upload), Some(&owed.normalize()));
        assert_eq!(newest(world).get(upload), Some(&owed.normalize()));
    }
    let adjustments = i64::try_from(moved.len()).unwrap() - 1;
    assert_eq!(world.number(AUDITED), adjustments);
    assert_eq!(
        world.number("select count(*) from payout_adjustments where outcome is not null"),
        adjustments
    );
    assert_eq!(
        world.number("select count(*) from rewards where calculation_factors->>'tariff_version' = 'half' and adjustment = 1"),
        adjustments,
        "the rows say by which tariff"
    );
    // Once more it finds nothing to do.
    told(world, &promote).unwrap_err();
    world.settle();
    assert_eq!((books(world), world.number(AUDITED)), (after, adjustments));
    let (text, left) = replayed(world, "half_again", &half);
    assert_eq!(left.keys().collect::<Vec<_>>(), [&photo(1, 1).header.upload_id.0], "{text}");
    by
}

/// Twice the first rate for petrol and the first one for the electric car, whose Sunday is paid: what that does not give back is missing.
fn doubled(world: &mut World, (granted, by): (Decimal, Decimal), sunday: UploadId) {
    let dear = RULES.replace("\"0.01\"", "\"0.02\"");
    paid(world, DRIVERS + 1, 6);
    let (text, moved) = replayed(world, "dear", &dear);
    assert!(text.contains("promoting it cancels 1 rewards of "), "{text}");
    let said = told(world, &["replay", "promote", "dear", "--reason", "the rate was right"]).unwrap_err();
    assert!(said.contains("4 rewards stay as they are"), "{said}");
    let refused: Vec<Uuid> = world
        .runtime
        .block_on(
            sqlx::query_scalar("select reward_id from payout_adjustments where outcome = 'refused' and detail like 'the weekly budget %'")
                .fetch_all(&world.pool),
        )
        .unwrap();
    assert_eq!(refused.len(), 2, "37 B3TR are left of the week for five raises of 9.5");
    let stays = |upload: &Uuid| {
        let paid = [photo(1, 1).header.upload_id, sunday].contains(&UploadId(*upload));
        paid || refused.contains(&RewardId::of(UploadId(*upload)).0)
    };
    let done: BTreeMap<Uuid, (Decimal, Decimal)> =
        moved.iter().filter(|(upload, _)| !stays(upload)).map(|(upload, both)| (*upload, *both)).collect();
    assert_eq!(done.len() + 4, moved.len());
    let by = by + difference(&done);
    let after = until_owed(world, granted + by, granted + by);
    told(world, &["replay", "promote", "dear", "--reason", "the rate was right"]).unwrap_err();
    world.settle();
    assert_eq!(books(world), after);
}

#[test]
fn a_promotion_by_half_and_by_twice_the_rate_moves_every_book_by_what_its_report_says_and_once() {
    let mut world = World::of(Own::prepare_with("promoted", &CHAIN));
    world.execute(
        "insert into users (id) select ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid from generate_series(1, 9) n"
            .to_owned(),
    );
    world.start();
    world.deployment.start(RoleSpec::stage("chain_submission", "a")).unwrap();
    world.deployment.start(RoleSpec::sink("postgres")).unwrap();
    world.deployment.start(RoleSpec::sink("analytics")).unwrap();
    world.deployment.start(RoleSpec::ingest()).unwrap();
    days(&world, 0, 8);
    world.settle();
    let granted: Decimal = newest(&world).values().sum();
    let sunday = photo(DRIVERS + 1, 6).header.upload_id;
    assert_eq!(newest(&world)[&sunday.0], Decimal::ZERO, "the week's budget is used up");
    until_owed(&world, granted, granted);

    let by = halved(&mut world, granted, sunday);
    doubled(&mut world, (granted, by), sunday);
    for name in ["half", "half_again", "dear"] {
        told(&world, &["replay", "drop", name]).unwrap();
    }
    world.deployment.stop();
    world.stack.stop();
}
