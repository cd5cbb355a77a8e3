//! The operators' commands of accounts and sessions, run as an operator runs them, on a database of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use uuid::Uuid;

/// A database, topics and a folder of a test's own.
struct World {
    url: String,
    name: String,
    folder: TempDir,
    pool: PgPool,
}

impl World {
    async fn new() -> Self {
        let server = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL is not set: run this test under `devstack`, which starts the parts");
        let name = format!("accounts_{}", Uuid::now_v7().simple());
        let create = sqlx::AssertSqlSafe(format!("create database {name}"));
        sqlx::query(create).execute(&PgPool::connect(&server).await.unwrap()).await.unwrap();
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path(&name);
        let url = url.to_string();
        let pool = PgPool::connect(&url).await.unwrap();
        migrations::MIGRATIONS.run(&pool).await.unwrap();
        let world = Self { url, name, folder: tempfile::tempdir().unwrap(), pool };
        world.run(&["topics", "apply"]);
        world.run(&["keys", "generate"]);
        world
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_milestream"))
            .args(arguments)
            .env("DATABASE_URL", &self.url)
            .env("MILESTREAM_KAFKA__TOPIC_PREFIX", format!("{}.", self.name))
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    async fn one(&self, sql: &'static str) -> Value {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }
}

#[tokio::test]
async fn accounts_are_listed_locked_and_unlocked_and_each_change_is_audited_with_before_and_after() {
    let world = World::new().await;
    let user = Uuid::now_v7().to_string();
    for _ in 0..2 {
        world.run(&["token", "--user", &user]);
    }
    world.execute("update users set email = 'ada@example.org', username = e'two\\nlines active'").await;
    let listed = world.run(&["users", "list"]);
    assert_eq!(listed, format!("{user} driver active \"two\\nlines active\" -\n"));
    assert_eq!(world.run(&["users", "list", "--locked"]), "");
    let shown = world.run(&["users", "show", &user]);
    assert!(shown.contains("\"open_sessions\": 2") && !shown.contains("example.org"), "{shown}");

    let lock = ["users", "lock", &user, "--reason", "a stolen phone"];
    assert_eq!(world.run(&lock), format!("{user} locked\n"));
    assert_eq!(world.run(&["sessions", "list", "--user", &user]), "", "its sessions have ended");
    assert!(world.run(&["users", "list", "--locked"]).starts_with(&user));
    assert!(world.refused(&["token", "--user", &user]).contains("is locked"));
    world.run(&lock);
    world.run(&["users", "unlock", &user, "--reason", "it was found"]);
    world.run(&["users", "role", &user, "reviewer"]);
    let audited = world
        .one(
            "select jsonb_agg(jsonb_build_array(action, severity, action_details -> 'before', action_details -> 'after')
               order by timestamp, id) from system_audit_logs",
        )
        .await;
    let locked = json!({ "is_active": false, "reason": "a stolen phone" });
    assert_eq!(
        audited,
        json!([
            ["user.deactivate", "warning", { "is_active": true }, locked],
            ["user.deactivate", "warning", { "is_active": false }, locked],
            ["user.activate", "info", { "is_active": false }, { "is_active": true, "reason": "it was found" }],
            ["user.role_change", "warning", { "role": "driver" }, { "role": "reviewer" }],
        ])
    );
    let announced =
        world.one("select to_jsonb(count(*)) from outbox where topic like '%accounts.changed'").await;
    assert_eq!(announced, 3, "when it was made, locked and unlocked");
    let nobody = Uuid::now_v7().to_string();
    for command in [
        &["users", "show", &nobody][..],
        &["users", "role", &nobody, "driver"],
        &["users", "lock", &nobody, "--reason", "x"],
    ] {
        assert!(world.refused(command).contains("there is no account"), "{command:?}");
    }
}

#[tokio::test]
async fn one_session_or_all_of_a_user_are_ended_and_audited() {
    let world = World::new().await;
    let (user, other) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    for user in [&user, &user, &user, &other] {
        world.run(&["token", "--user", user]);
    }
    let sessions = |user: &str| {
        let listed = world.run(&["sessions", "list", "--user", user]);
        listed.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<String>>()
    };
    let open = sessions(&user);
    assert_eq!(open.len(), 3);
    assert_eq!(world.run(&["sessions", "revoke", &open[1]]), format!("{}\n", open[1]));
    assert_eq!(sessions(&user), [open[0].clone(), open[2].clone()]);
    assert!(world.refused(&["sessions", "revoke", &open[1]]).contains("there is no such open session"));
    assert!(world.refused(&["sessions", "revoke"]).contains("required"));
    world.run(&["sessions", "revoke", "--user", &user]);
    assert_eq!((sessions(&user).len(), sessions(&other).len()), (0, 1));
    let audited =
        world.one("select to_jsonb(count(*)) from system_audit_logs where action = 'session.revoke'").await;
    assert_eq!(audited, 3);
}

#[tokio::test]
async fn an_account_is_held_and_released_and_one_that_is_erased_changes_no_more() {
    let world = World::new().await;
    let user = Uuid::now_v7().to_string();
    world.run(&["token", "--user", &user]);
    let hold = ["users", "hold", &user, "--reason", "the same photo twice"];
    assert_eq!(world.run(&hold), format!("{user} held\n"));
    assert!(world.run(&["users", "list"]).starts_with(&format!("{user} driver held ")));
    world.run(&hold);
    let release = ["users", "release", &user, "--reason", "it was theirs"];
    assert_eq!(world.run(&release), format!("{user} released\n"));
    let audited = world
        .one(
            "select jsonb_agg(jsonb_build_array(action, action_details -> 'before', action_details -> 'after')
               order by timestamp, id) from system_audit_logs where action in ('user.hold', 'user.release')",
        )
        .await;
    let held = json!({ "is_held": true, "reason": "the same photo twice" });
    assert_eq!(
        audited,
        json!([
            ["user.hold", { "is_held": false }, held],
            ["user.hold", { "is_held": true }, held],
            ["user.release", { "is_held": true }, { "is_held": false, "reason": "it was theirs" }],
        ])
    );
    let announced =
        world.one("select to_jsonb(count(*)) from outbox where topic like '%accounts.events'").await;
    assert_eq!(announced, 2, "when it was held and released");
    let erase = "insert into erasures (user_id, requested_at, due_at, erased_at) select id, now(), now(), now() from users";
    world.execute(erase).await;
    assert!(world.run(&["users", "list"]).starts_with(&format!("{user} driver erased ")));
    for command in ["lock", "unlock", "hold", "release"] {
        assert!(
            world.refused(&["users", command, &user, "--reason", "x"]).contains("is erased"),
            "{command}"
        );
    }
}

#[tokio::test]
async fn limits_and_flags_are_listed_and_set_and_each_change_is_audited_with_before_and_after() {
    let world = World::new().await;
    assert!(world.refused(&["limits", "list"]).contains("run `milestream migrate` first"));
    world.run(&["migrate"]);
    let made = "select jsonb_build_array(environment, version is not null, maintenance_mode, feature_flags -> 'registrations',
                  rate_limits -> 'uploads' -> 'per_user', revision) from system_config";
    let rate = json!({ "requests": 20, "window_s": 86_400, "burst": 20 });
    assert_eq!(world.one(made).await, json!(["development", true, false, true, rate, 1]));
    world.run(&["migrate"]);
    assert_eq!(world.one(made).await[5], 1, "nothing has changed");
    assert!(world.run(&["limits", "list"]).contains("uploads.per_vehicle 20 86400 20\n"));
    let set = world.run(&["limits", "set", "uploads.per_user", "5", "--seconds", "3600", "--burst", "2"]);
    assert_eq!(set, "uploads.per_user 5 3600 2\n");
    assert!(
        world.refused(&["limits", "set", "upload.per_user", "5", "--seconds", "60"]).contains("limits list")
    );
    assert!(world.refused(&["limits", "set", "api.per_user", "0", "--seconds", "60"]).contains("requests"));
    assert!(world.run(&["flags", "list"]).contains("registrations on (off: no new account is made)\n"));
    assert_eq!(world.run(&["flags", "set", "registrations", "off"]), "registrations off\n");
    assert_eq!(world.run(&["flags", "set", "maintenance_mode", "on"]), "maintenance_mode on\n");
    assert!(world.refused(&["flags", "set", "registration", "off"]).contains("flags list"));
    let row = world.one(made).await;
    assert_eq!((&row[2], &row[3], &row[5]), (&json!(true), &json!(false), &json!(4)));
    world.run(&["limits", "list"]);
    let audited = "select jsonb_agg(jsonb_build_array(action, severity, action_details -> 'target', action_details -> 'before',
                     action_details -> 'after') order by timestamp) from system_audit_logs where module = 'config'";
    assert_eq!(
        world.one(audited).await,
        json!([
            ["rate_limit.change", "warning", "uploads.per_user", rate, { "requests": 5, "window_s": 3_600, "burst": 2 }],
            ["flag.change", "info", "registrations", true, false],
            ["maintenance.on", "warning", "maintenance_mode", false, true],
        ])
    );
}

#[tokio::test]
async fn a_key_of_a_service_is_printed_once_listed_and_revoked_and_both_are_audited() {
    let world = World::new().await;
    let user = Uuid::now_v7().to_string();
    let create = |scope| {
        ["keys", "api", "create", "--user", &user, "--name", "fleet", "--scope", scope, "--days", "7"]
    };
    assert!(world.refused(&create("read")).contains("milestream token --user"));
    world.run(&["token", "--user", &user]);
    let printed = world.run(&create("read"));
    let (id, key) = printed.trim_end().split_once(' ').unwrap();
    assert!(key.starts_with("msk_") && key.len() == 47, "{key}");
    assert!(world.refused(&create("everything")).contains("possible values"));
    let listed = world.run(&["keys", "api", "list", "--user", &user]);
    assert!(
        listed.starts_with(&format!("{id} {user} read active ")) && listed.ends_with(" - \"fleet\"\n"),
        "{listed}"
    );
    world.run(&["keys", "api", "revoke", id, "--reason", "left the fleet"]);
    assert!(world.run(&["keys", "api", "list"]).contains(" revoked "));
    assert!(world.refused(&["keys", "api", "revoke", id, "--reason", "again"]).contains("keys api list"));
    let audited = world
        .one(
            "select jsonb_agg(jsonb_build_array(action, severity, action_details -> 'before' -> 'revoked', action_details -> 'after' -> 'reason',
               action_details ->> 'target') order by timestamp) from system_audit_logs where action like 'key.%'",
        )
        .await;
    let expected = json!([
        ["key.create", "warning", null, null, id],
        ["key.revoke", "warning", false, "left the fleet", id],
    ]);
    assert_eq!(audited, expected);
    let kept = world.one("select jsonb_agg(to_jsonb(k)) from api_keys k").await.to_string();
    assert!(!kept.contains(&key[4..]), "{kept}");
}
