//! The operators' commands of the chain, run as an operator runs them, on a real Thor node with the real contracts and a database of
//! the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use chain::deploy::SOLO_KEYS;
use chain::keystore::{Keystore, Password};
use chain::node::Revision;
use chain::{Address, Signer};
use devstack::Stack;
use harness::deployment::{Deployment, DeploymentConfig, make_folder};
use harness::local_chain::{LocalChain, wallet_of};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgPool;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Every name that a contract may have.
const NAMES: [&str; 4] = ["B3TR Token Contract", "VeBetterPassport", "X2EarnApps", "X2EarnRewardsPool"];
/// VTHO, which is on every network from its genesis block on (Thor `builtin.Energy`).
const VTHO: &str = "0x0000000000000000000000000000456e65726779";

/// Parts and contracts, for all tests of this file.
struct Ground {
    stack: Stack,
    chain: LocalChain,
    folder: PathBuf,
}

/// The contracts are deployed once; the tests take turns, for they share the folder of the keystore.
fn ground() -> (MutexGuard<'static, ()>, &'static Ground) {
    static TURN: Mutex<()> = Mutex::new(());
    static GROUND: OnceLock<Ground> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let ground = GROUND.get_or_init(|| {
        for variable in ["DATABASE_URL", "THOR_URL", "KAFKA_BROKERS", "SCHEMA_REGISTRY_URL"] {
            assert!(
                std::env::var(variable).is_ok_and(|url| !url.is_empty()),
                "{variable} is not set: run under `devstack --with thor`"
            );
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local");
        let stack = Stack::start_with(&root, &[devstack::Part::Thor], &|line| eprintln!("{line}")).unwrap();
        let folder = make_folder(&stack.folder().join("operator")).unwrap();
        let chain = runtime().block_on(LocalChain::deploy(&stack, &root.join("contracts"), &folder)).unwrap();
        Ground { stack, chain, folder }
    });
    (turn, ground)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A database and topics of a test's own, with the commands that work on them.
struct World {
    runtime: Runtime,
    deployment: Deployment,
    pool: PgPool,
}

impl World {
    fn new(ground: &Ground, name: &str) -> Self {
        let runtime = runtime();
        let unique = format!("{name}_{}", Uuid::now_v7().simple());
        let url = runtime.block_on(async {
            let server = PgPool::connect(ground.stack.database_url()).await.unwrap();
            let create = sqlx::AssertSqlSafe(format!("create database {unique}"));
            sqlx::query(create).execute(&server).await.unwrap();
            let mut url = url::Url::parse(ground.stack.database_url()).unwrap();
            url.set_path(&unique);
            url.to_string()
        });
        let mut settings = ground.chain.settings();
        settings.push(("DATABASE_URL".into(), url.clone()));
        settings.push(("MILESTREAM_KAFKA__TOPIC_PREFIX".into(), format!("{unique}.")));
        let program = PathBuf::from(env!("CARGO_BIN_EXE_milestream"));
        let folder = ground.folder.clone();
        let config = DeploymentConfig { program, logs: folder.join("logs"), folder, settings };
        let deployment = Deployment::prepare(&ground.stack, config).unwrap();
        let pool = runtime.block_on(PgPool::connect(&url)).unwrap();
        Self { runtime, deployment, pool }
    }

    fn run(&self, command: &[&str]) -> String {
        self.deployment.command(command).unwrap()
    }

    fn refused(&self, command: &[&str]) -> String {
        self.deployment.command(command).unwrap_err().to_string()
    }

    /// A question's only value, as JSON.
    fn one(&self, sql: &'static str) -> Value {
        self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(&self.pool)).unwrap()
    }

    fn execute(&self, sql: &'static str) {
        self.runtime.block_on(sqlx::query(sql).execute(&self.pool)).unwrap();
    }
}

#[test]
fn nodes_and_contracts_stand_in_the_tables_as_the_chain_has_them() {
    let (_turn, ground) = ground();
    let world = World::new(ground, "added");
    ground.chain.register(&world.deployment).unwrap();
    let contracts = ground.chain.contracts();

    let node = world.one("select to_jsonb(n) from network_configs n");
    assert_eq!(node["network_name"], "vechain_testnet");
    assert_eq!(node["rpc_url"], ground.stack.thor_url());
    assert_eq!(node["genesis_id"], contracts.genesis_id.to_string());
    assert_eq!((&node["chain_id"], &node["block_time"]), (&88.into(), &1.into()));
    assert_eq!((&node["gas_limit"], &node["priority"]), (&15_000_000.into(), &1.into()));
    assert_eq!(world.one("select to_jsonb(gas_price::text) from network_configs"), "0.00001000");
    assert_eq!(node["is_active"], true);

    let rows = world.one(
        "select jsonb_object_agg(contract_name, to_jsonb(c) || jsonb_build_object('total', total_supply::text,
            'circulating', circulating_supply::text)) from smart_contracts c",
    );
    let names: Vec<&String> = rows.as_object().unwrap().keys().collect();
    assert_eq!(names, NAMES);
    let addresses = [contracts.b3tr, contracts.passport, contracts.x2earn_apps, contracts.rewards_pool];
    let kinds = ["token", "governance", "governance", "reward_distributor"];
    let client = ground.chain.node().unwrap();
    for ((name, address), kind) in NAMES.into_iter().zip(addresses).zip(kinds) {
        let row = &rows[name];
        assert_eq!(row["contract_address"], address.to_string(), "{name}");
        assert_eq!((&row["contract_type"], &row["network"]), (&kind.into(), &"testnet".into()), "{name}");
        assert_eq!((&row["is_active"], &row["genesis_id"]), (&true.into(), &node["genesis_id"]), "{name}");
        let code = world.runtime.block_on(client.code(address, Revision::Best)).unwrap();
        assert_eq!(row["bytecode"], format!("0x{}", hex::encode(code)), "{name}");
        let calls = row["abi"].as_array().unwrap().iter().filter(|item| item["type"] == "function");
        assert!(calls.count() > 1, "{name}");
    }
    let (pool, token) = (&rows["X2EarnRewardsPool"], &rows["B3TR Token Contract"]);
    // The pool says it itself; the others' is the package's.
    assert_eq!((&pool["abi_version"], &token["abi_version"]), (&"4".into(), &"4.1.0".into()));
    assert_eq!(pool["app_id"], contracts.app_id.to_string());
    assert_eq!(pool["deployed_by"], contracts.admin.to_string());
    assert!(pool["deployed_at"].is_string() && token["deployed_at"].is_null());
    // All that was minted lies in the pool.
    let total: Decimal = token["total"].as_str().unwrap().parse().unwrap();
    let funds = contracts.funds.to_b3tr().unwrap();
    let circulating: Decimal = token["circulating"].as_str().unwrap().parse().unwrap();
    assert!(total >= funds && circulating == total - funds, "{total} {circulating} {funds}");
    assert!(pool["total"].is_null());

    let audit = world.one(
        "select jsonb_agg(jsonb_build_array(action, action_details->>'target') order by timestamp) from system_audit_logs
         where module = 'chain' and severity = 'info' and user_id is null",
    );
    let targets: Vec<&str> =
        audit.as_array().unwrap().iter().map(|entry| entry[1].as_str().unwrap()).collect();
    assert_eq!(audit[0][0], "network.update");
    assert_eq!(targets[0], ground.stack.thor_url());
    assert_eq!(targets[1..].len(), NAMES.len());
    let listed = world.run(&["contracts", "list"]);
    assert_eq!(listed.lines().count(), NAMES.len());
    assert!(listed.contains(&format!("testnet {} active X2EarnApps", contracts.x2earn_apps)), "{listed}");
}

#[test]
fn the_same_node_again_changes_its_row_and_a_disabled_one_is_asked_no_more() {
    let (_turn, ground) = ground();
    let world = World::new(ground, "nodes");
    let url = ground.stack.thor_url();
    world.run(&["networks", "add", "--rpc-url", url]);
    world.run(&[
        "networks",
        "add",
        "--rpc-url",
        url,
        "--priority",
        "7",
        "--websocket-url",
        "ws://127.0.0.1:1/",
    ]);
    let rows = world
        .one("select jsonb_agg(jsonb_build_array(priority, websocket_url, is_active)) from network_configs");
    assert_eq!(rows, serde_json::json!([[7, "ws://127.0.0.1:1/", true]]));
    let last = "select action_details from system_audit_logs order by timestamp desc limit 1";
    let details = world.one(last);
    assert_eq!((&details["before"]["priority"], &details["after"]["priority"]), (&1.into(), &7.into()));

    world.run(&["networks", "disable", url]);
    assert_eq!(world.run(&["networks", "list"]), format!("vechain_testnet {url} 7 disabled"));
    assert_eq!(world.one(last)["after"], serde_json::json!({"is_active": false}));
    let refused = world.refused(&["contracts", "add", "--name", "X2EarnApps", "--address", VTHO]);
    assert!(refused.contains("run `milestream networks add` first"), "{refused}");
}

#[test]
fn what_cannot_be_a_node_or_a_contract_is_refused_and_nothing_is_written() {
    let (_turn, ground) = ground();
    let world = World::new(ground, "refused");
    let authority = ground.stack.thor_url().trim_start_matches("http://");
    let with_login = format!("http://operator:hunter2@{authority}");
    let app = ground.chain.contracts().app_id.to_string();
    let registry = std::env::var("SCHEMA_REGISTRY_URL").unwrap();
    let node = ["networks", "add", "--rpc-url"];
    for (url, reason) in [
        (with_login.as_str(), "holds a login"),
        ("ftp://127.0.0.1/", "http"),
        ("http://127.0.0.1:1", "genesis block"),
        // A server of another kind.
        (registry.as_str(), "genesis block"),
        ("no url", "not a URL"),
    ] {
        let refused = world.refused(&[&node[..], &[url]].concat());
        // Before it stands the command line, with all that it holds.
        let message = refused.rsplit("milestream: ").next().unwrap();
        assert!(message.contains(reason) && !message.contains("hunter2"), "{url}: {message}");
    }
    assert_eq!(world.one("select to_jsonb(count(*)) from network_configs"), 0);

    world.run(&["networks", "add", "--rpc-url", ground.stack.thor_url()]);
    let empty = Address([7; 20]).to_string();
    for (name, address, more, reason) in [
        ("X2EarnApps", empty.as_str(), &[][..], "there is no contract at"),
        ("X2EarnRewardsPool", VTHO, &["--app-id", app.as_str()][..], "version()"),
        ("X2EarnRewardsPool", VTHO, &[][..], "--app-id"),
        ("X2EarnRewards", VTHO, &[][..], "choose of"),
        ("X2EarnApps", "0x1234", &[][..], "--address"),
        ("X2EarnApps", VTHO, &["--deployed-tx", &app][..], "there is no transaction"),
    ] {
        let command = ["contracts", "add", "--name", name, "--address", address];
        let refused = world.refused(&[&command[..], more].concat());
        assert!(refused.contains(reason), "{name} {address}: {refused}");
    }
    assert_eq!(world.one("select to_jsonb(count(*)) from smart_contracts"), 0);
    // The migration's own, and the one network that was added.
    let audited = world.one("select jsonb_agg(action order by timestamp) from system_audit_logs");
    assert_eq!(audited, serde_json::json!(["provider.create", "network.update"]));
}

#[test]
fn a_new_contract_takes_the_old_ones_place_and_supplies_are_read_anew() {
    let (_turn, ground) = ground();
    let world = World::new(ground, "changed");
    ground.chain.register(&world.deployment).unwrap();
    let old = ground.chain.contracts().x2earn_apps.to_string();
    world.run(&["contracts", "add", "--name", "X2EarnApps", "--address", VTHO]);
    let active = world.one(
        "select jsonb_object_agg(contract_address, is_active) from smart_contracts where contract_name = 'X2EarnApps'",
    );
    assert_eq!(active, serde_json::json!({ VTHO: true, &old: false }));
    let last = "select action_details from system_audit_logs order by timestamp desc limit 1";
    assert_eq!(world.one(last)["before"]["contract_address"], old);
    world.run(&["contracts", "add", "--name", "X2EarnApps", "--address", &old]);
    assert_eq!(
        world.one("select to_jsonb(contract_address) from smart_contracts where contract_name = 'X2EarnApps' and is_active"),
        old
    );

    let supplies =
        "select jsonb_build_array(total_supply::text, circulating_supply::text) from smart_contracts
        where contract_name = 'B3TR Token Contract'";
    let right = world.one(supplies);
    world.execute("update smart_contracts set total_supply = 1, circulating_supply = 1");
    world.run(&["contracts", "refresh"]);
    assert_eq!(world.one(supplies), right);
    assert_eq!(world.one(last)["before"]["total_supply"], "1.00000000");
}

#[test]
fn a_users_first_wallet_is_the_primary_one_and_linking_it_again_changes_nothing() {
    let (_turn, ground) = ground();
    let world = World::new(ground, "wallets");
    let user = Uuid::now_v7();
    let (id, first, second) = (user.to_string(), wallet_of(user), wallet_of(Uuid::now_v7()));
    let add = |address: &str| {
        let command = ["wallet", "add", "--user", &id, "--address", address];
        world.deployment.command(&command)
    };
    let wallet = add(&first.checksummed()).unwrap();
    assert_eq!(add(&first.to_string()).unwrap(), wallet);
    assert_ne!(add(&second.to_string()).unwrap(), wallet);
    assert!(add("0x1234").is_err());
    let rows = world.one(
        "select jsonb_agg(jsonb_build_array(id, wallet_address, network, is_primary) order by created_at) from user_wallets",
    );
    assert_eq!(rows[0], serde_json::json!([wallet, first.to_string(), "testnet", true]));
    assert_eq!((&rows[1][1], &rows[1][3]), (&second.to_string().into(), &false.into()));
    assert_eq!(rows.as_array().unwrap().len(), 2);
}

#[test]
fn a_distributors_key_is_changed_and_the_old_one_kept_and_the_change_audited() {
    let (_turn, ground) = ground();
    let world = World::new(ground, "rotated");
    let folder = tempfile::tempdir().unwrap();
    assert!(distributor(folder.path(), &[]).status.success());
    let (store, password) = (folder.path().join("k/store.json"), folder.path().join("k/password"));
    let address = |path: &Path| {
        let password = Password::from_file(&password).unwrap();
        Keystore::read(path).unwrap().open(&password).unwrap().address()
    };
    let old = address(&store);
    let rotate = || {
        Command::new(env!("CARGO_BIN_EXE_milestream"))
            .args(["keys", "rotate", "--light", "--reason", "yearly"])
            .envs(world.deployment.environment().iter().cloned())
            .env("MILESTREAM_CHAIN__KEYSTORE_FILE", &store)
            .env("MILESTREAM_CHAIN__KEYSTORE_PASSWORD_FILE", &password)
            .output()
            .unwrap()
    };
    let done = rotate();
    assert!(done.status.success(), "{done:?}");
    let new = address(&store);
    assert_ne!(new, old);
    let kept = folder.path().join(format!("k/store.json.{old}"));
    assert_eq!(address(&kept), old);
    let audited = world.one(
        "select jsonb_build_array(action_details->'before'->>'distributor', action_details->'after'->>'distributor', severity)
         from system_audit_logs where action = 'key.rotate'",
    );
    assert_eq!(audited, serde_json::json!([old.to_string(), new.to_string(), "critical"]));
    assert!(rotate().status.success(), "and once more");
    assert_eq!(address(&folder.path().join(format!("k/store.json.{new}"))), new);
}

#[test]
fn a_rewind_is_ordered_once_within_what_was_told_and_audited() {
    let (_turn, ground) = ground();
    let world = World::new(ground, "rewound");
    let contracts = ground.chain.contracts();
    let (genesis, first) = (contracts.genesis_id, contracts.block_number);
    let (height, more) = (first + 100, first + 41);
    let to = |height: u32| {
        let height = height.to_string();
        let command = ["watch", "rewind", "--reason", "another app was set", "--to", &height];
        world.deployment.command(&command).map_err(|error| error.to_string())
    };
    assert!(to(first).unwrap_err().contains("no block of the network was told yet"));
    let mut tip = [7; 32];
    tip[..4].copy_from_slice(&height.to_be_bytes());
    let checkpoint = chain::follow::Checkpoint::after(chain::BlockId(tip));
    let insert = sqlx::query(
        "insert into chain_cursors (genesis_id, highest_seq, checkpoint, updated_at) values ($1, 100, $2, now())",
    )
    .bind(genesis.to_string())
    .bind(serde_json::to_value(&checkpoint).unwrap());
    world.runtime.block_on(insert.execute(&world.pool)).unwrap();
    let refused = to(height).unwrap_err();
    assert!(refused.contains(&format!("block {height} is the newest that was told")), "{refused}");
    if let Some(below) = first.checked_sub(1) {
        let refused = to(below).unwrap_err();
        assert!(refused.contains("watch.start_block"), "{refused}");
    }
    assert!(to(first + 40).unwrap().contains("60 blocks"));
    let refused = to(more).unwrap_err();
    assert!(refused.contains("not carried out yet"), "{refused}");
    let row = world.one("select jsonb_build_array(genesis_id, to_number, reason) from watch_rewinds");
    assert_eq!(row, serde_json::json!([genesis.to_string(), first + 40, "another app was set"]));
    let audited =
        world.one("select action_details->'after' from system_audit_logs where action = 'watch.rewind'");
    assert_eq!(audited, serde_json::json!({"to": first + 40, "told": height, "why": "another app was set"}));
}

#[test]
fn payouts_that_wait_for_a_reason_of_their_own_are_listed_with_those_that_wait_for_a_person_and_no_others_are()
 {
    let (_turn, ground) = ground();
    let world = World::new(ground, "listed");
    world.execute(
        "insert into payouts (reward_id, user_id, amount_wei, state, reason, ready_at, header, stamp, updated_at)
         select gen_random_uuid(), gen_random_uuid(), 10000000000, state, reason, now() + wait, '{}', '{}', now()
         from (values ('ready', 'blacklisted: it is listed', interval '1 hour'), ('quarantined', 'poisoned_clause: no', null),
            ('ready', 'poisoned_clause: it was', interval '-1 hour'), ('ready', null, interval '1 hour'), ('waiting', 'unclaimed: ', null),
            ('paid', null, null)) as listed (state, reason, wait)",
    );
    let mut listed: Vec<String> = world
        .run(&["payouts", "list"])
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.to_owned())
        .collect();
    listed.sort();
    assert_eq!(
        listed,
        ["quarantined 10000000000 poisoned_clause: no", "ready 10000000000 blacklisted: it is listed"]
    );
    assert_eq!(world.run(&["payouts", "list", "--state", "ready"]).lines().count(), 3);
}

/// `keys distributor` in a folder of its own: it needs no server.
fn distributor(folder: &Path, arguments: &[&str]) -> Output {
    let chain = |key: &str, file: &str| (format!("MILESTREAM_CHAIN__{key}"), folder.join(file));
    Command::new(env!("CARGO_BIN_EXE_milestream"))
        .args(["keys", "distributor", "--light"])
        .args(arguments)
        .envs([chain("KEYSTORE_FILE", "k/store.json"), chain("KEYSTORE_PASSWORD_FILE", "k/password")])
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_distributors_key_is_kept_encrypted_for_its_owner_alone_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (store, password) = (folder.path().join("k/store.json"), folder.path().join("k/password"));
    let import = folder.path().join("key.hex");
    std::fs::write(&import, format!("0x{}\n", SOLO_KEYS[1])).unwrap();
    let done = distributor(folder.path(), &["--import", &import.to_string_lossy()]);
    assert!(done.status.success(), "{done:?}");

    let address = Signer::from_hex(SOLO_KEYS[1]).unwrap().address();
    let printed = String::from_utf8(done.stdout).unwrap();
    assert!(printed.contains(&hex::encode(address.as_bytes())), "{printed}");
    for file in [&store, &password] {
        assert_eq!(
            std::fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
        assert!(!std::fs::read_to_string(file).unwrap().contains(SOLO_KEYS[1]));
    }
    let open = || Keystore::read(&store).unwrap().open(&Password::from_file(&password).unwrap()).unwrap();
    assert_eq!(open().address(), address);

    let before = std::fs::read(&store).unwrap();
    let again = distributor(folder.path(), &[]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("it is never overwritten"), "{again:?}");
    assert_eq!(std::fs::read(&store).unwrap(), before);

    // A new key under the same password is another one.
    std::fs::rename(&store, folder.path().join("k/old.json")).unwrap();
    assert!(distributor(folder.path(), &[]).status.success());
    assert_ne!(open().address(), address);
}

#[test]
fn a_file_that_holds_no_key_is_refused_without_showing_it_and_makes_no_keystore() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["", "7b067f53", &"z".repeat(64), &"0".repeat(64)] {
        let import = folder.path().join("key.hex");
        std::fs::write(&import, text).unwrap();
        let refused = distributor(folder.path(), &["--import", &import.to_string_lossy()]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && (text.is_empty() || !said.contains(text)), "{said}");
        assert!(!folder.path().join("k/store.json").exists());
    }
}
