//! The operators' commands of reading services and of the rules of rewards, run as an operator runs them, on a database of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use providers::vault::Keys;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use uuid::Uuid;

const VISION: &str = "https://vision.googleapis.com/v1/images:annotate";
const KEY: &str = "AIza-not-a-real-key";

/// A database and a folder of a test's own.
struct World {
    url: String,
    folder: TempDir,
    pool: PgPool,
}

impl World {
    async fn new() -> Self {
        let server = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL is not set: run this test under `devstack`, which starts a Postgres");
        let name = format!("services_{}", Uuid::now_v7().simple());
        let create = sqlx::AssertSqlSafe(format!("create database {name}"));
        sqlx::query(create).execute(&PgPool::connect(&server).await.unwrap()).await.unwrap();
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path(&name);
        let url = url.to_string();
        let pool = PgPool::connect(&url).await.unwrap();
        migrations::MIGRATIONS.run(&pool).await.unwrap();
        Self { url, folder: tempfile::tempdir().unwrap(), pool }
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_milestream"))
            .args(arguments)
            .env("DATABASE_URL", &self.url)
            .env("MILESTREAM_SERVICES__KEYS_FILE", self.keys().file)
            .env("MILESTREAM_SERVICES__SECRETS_FOLDER", self.keys().folder)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("AIza"), "{text}");
        text
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn keys(&self) -> Keys {
        let folder = self.folder.path();
        Keys { file: folder.join("services.keys"), folder: folder.join("long"), ..Keys::default() }
    }

    /// A file with a secret.
    fn secret(&self, text: &str) -> String {
        let path = self.folder.path().join("secret");
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn add_google(&self, key: &str) {
        let file = self.secret(key);
        let what = ["service", "set", "Google Vision", "--protocol", "google_vision", "--endpoint", VISION];
        self.run(&[&what[..], &["--cost", "0.00151", "--per-day", "500", "--key-file", &file]].concat());
    }

    async fn one(&self, sql: &'static str) -> Value {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// The key of Google Vision, opened.
    async fn opened(&self) -> String {
        let (id, stored): (Uuid, String) =
            sqlx::query_as("select id, api_key from ai_service_configs where service_name = 'Google Vision'")
                .fetch_one(&self.pool)
                .await
                .unwrap();
        let opened = self.keys().vault().unwrap().open(id, "api_key", &stored).unwrap();
        opened.expose_secret().to_owned()
    }
}

const AUDITED: &str =
    "select jsonb_agg(jsonb_build_array(action, severity, action_details->>'target') order by timestamp, id)
    from system_audit_logs where module = 'ai'";

#[tokio::test]
async fn a_service_is_added_changed_listed_and_disabled_and_each_change_is_audited_without_its_key() {
    let world = World::new().await;
    world.add_google(KEY);
    let row = world.one("select to_jsonb(c) || jsonb_build_object('cost', cost_per_request::text) from ai_service_configs c").await;
    assert_eq!((&row["service_type"], &row["protocol"]), (&json!("ocr"), &json!("google_vision")));
    assert_eq!((&row["priority"], &row["timeout_ms"]), (&json!(5), &json!(10_000)));
    assert_eq!(row["cost"], "0.0016", "rounded up");
    assert_eq!(row["rate_limit"], json!({"per_minute": null, "per_hour": null, "per_day": 500}));
    assert!(row["api_key"].as_str().unwrap().starts_with("v1.") && row["api_secret"].is_null());
    assert_eq!(world.opened().await, KEY);
    world.run(&["service", "set", "Google Vision", "--priority", "2", "--threshold", "0.75"]);
    world.run(&["service", "set", "Milestream Embedded", "--threshold", "0.9"]);
    let listed = world.run(&["service", "list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert!(
        lines[0].starts_with("1 active 0.90 0.0000 \"Milestream Embedded\" embedded embedded:"),
        "{listed}"
    );
    assert!(
        lines[1].starts_with("2 active 0.75 0.0016 \"Google Vision\" google_vision https://"),
        "{listed}"
    );
    world.run(&["service", "disable", "Google Vision"]);
    assert!(world.run(&["service", "list"]).contains("2 disabled"));
    let audited = world.one(AUDITED).await;
    assert_eq!(
        audited,
        json!([
            ["provider.create", "info", "Google Vision"],
            ["provider.update", "info", "Google Vision"],
            ["provider.create", "info", "Milestream Embedded"],
            ["provider.update", "info", "Google Vision"],
        ])
    );
    let all = world.one("select jsonb_agg(action_details) from system_audit_logs").await.to_string();
    assert!(!all.contains("AIza") && !all.contains("v1."), "{all}");
    let refused = world.refused(&["service", "disable", "Milestream Embedded"]);
    assert!(refused.contains("part of every cascade"), "{refused}");
}

#[tokio::test]
async fn a_migration_records_the_embedded_reader_and_leaves_what_an_operator_set_of_it() {
    let world = World::new().await;
    world.run(&["migrate"]);
    let row = "select to_jsonb(c) - array['id', 'endpoint_url', 'created_at', 'updated_at'] from ai_service_configs c";
    let printed = json!({
        "service_name": "Milestream Embedded", "service_type": "ocr", "protocol": "embedded", "is_active": true, "priority": 1,
        "api_key": null, "api_secret": null, "model": null, "timeout_ms": 10_000, "hedge_ms": null,
        "rate_limit": {"per_minute": null, "per_hour": null, "per_day": null}, "cost_per_request": 0.0,
        "accuracy_threshold": 0.8,
    });
    assert_eq!(world.one(row).await, printed);
    world.run(&["service", "set", "Milestream Embedded", "--threshold", "0.9"]);
    let of_old = "update ai_service_configs set endpoint_url = 'embedded:of_an_older_release'";
    sqlx::query(of_old).execute(&world.pool).await.unwrap();
    for _ in 0..2 {
        world.run(&["migrate"]);
    }
    let kept =
        world.one("select jsonb_build_array(accuracy_threshold, endpoint_url) from ai_service_configs").await;
    assert_eq!(kept, json!([0.9, "embedded:ppocrv5_det,ppocrv6_rec_ascii,digit_reader,locator,line_reader"]));
    let changes = world.one(AUDITED).await;
    let changes: Vec<&str> =
        changes.as_array().unwrap().iter().map(|change| change[0].as_str().unwrap()).collect();
    assert_eq!(changes, ["provider.create", "provider.update", "provider.update"]);
}

#[tokio::test]
async fn a_rotation_seals_every_key_anew_and_the_old_key_is_then_needed_no_more() {
    let world = World::new().await;
    world.add_google(KEY);
    let long = format!("AIza{}", "k".repeat(400));
    let file = world.secret(&long);
    let aws = ["service", "set", "AWS Rekognition", "--protocol", "aws_rekognition", "--cost", "0.001"];
    let address = ["--endpoint", "https://rekognition.eu-central-1.amazonaws.com/"];
    world.run(&[&aws[..], &address, &["--key-file", &file, "--secret-file", &file]].concat());
    let sealed = "select jsonb_agg(jsonb_build_array(api_key, api_secret) order by service_name) from ai_service_configs";
    let before = world.one(sealed).await;
    assert!(before[0][0].as_str().unwrap().starts_with("ref:file:"), "{before}");
    let old = std::fs::read_to_string(world.keys().file).unwrap();
    let printed = world.run(&["service", "rotate"]);
    let both = std::fs::read_to_string(world.keys().file).unwrap();
    let new = both.lines().next().unwrap();
    assert!(both.contains(old.trim()) && new != old.trim());
    // Whoever drops the old key now can still open everything.
    std::fs::write(world.keys().file, new).unwrap();
    assert_eq!(world.opened().await, KEY);
    assert!(printed.contains(world.keys().vault().unwrap().current_key().unwrap()), "{printed}");
    let after = world.one(sealed).await;
    for column in [0, 1] {
        assert_ne!(before[0][column], after[0][column]);
    }
    let files = std::fs::read_dir(world.keys().folder).unwrap().count();
    assert_eq!(files, 2, "the old files are gone");
    assert_eq!(world.one(AUDITED).await.as_array().unwrap().len(), 4, "two added, two sealed anew");
    assert!(!both.contains("AIza") && is_private(&world.keys().file));
}

fn is_private(path: &Path) -> bool {
    std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o077 == 0
}

#[tokio::test]
async fn what_could_never_be_asked_or_reached_is_refused_and_writes_nothing() {
    let world = World::new().await;
    let file = world.secret(KEY);
    let set =
        |more: &[&str]| world.refused(&[&["service", "set", "Vision", "--cost", "0.01"], more].concat());
    let google = ["--protocol", "google_vision", "--endpoint", VISION];
    assert!(set(&[]).contains("--protocol"));
    assert!(set(&["--protocol", "gopher"]).contains("none of google_vision"));
    assert!(set(&["--protocol", "embedded"]).contains("alone"));
    assert!(set(&google).contains("the API key is missing"));
    let keyed = [&google[..], &["--key-file", &file]].concat();
    assert!(set(&[&keyed[..], &["--threshold", "0.86"]].concat()).contains("nothing would reach it"));
    assert!(set(&[&keyed[..], &["--cost", "200"]].concat()).contains("cannot be used multiple times"));
    let plain = ["--protocol", "google_vision", "--endpoint", "http://vision.example/", "--key-file", &file];
    assert!(set(&plain).contains("must begin with https://"));
    let chat = [
        "--protocol",
        "openai",
        "--endpoint",
        "https://chat.example/v1/chat/completions",
        "--key-file",
        &file,
    ];
    assert!(set(&chat).contains("the model is missing"));
    let empty = world.secret("");
    assert!(set(&[&google[..], &["--key-file", &empty]].concat()).contains("is empty"));
    assert!(world.refused(&["service", "disable", "Vision"]).contains("there is no service"));
    assert_eq!(world.one("select to_jsonb(count(*)) from ai_service_configs").await, 0);
    assert_eq!(world.one("select to_jsonb(count(*)) from system_audit_logs").await, 0);
}

#[tokio::test]
async fn rules_are_checked_with_their_lines_applied_once_listed_shown_and_recorded() {
    let world = World::new().await;
    let sample = include_str!("../../examples/reward-rules.toml");
    let file = world.folder.path().join("rules.toml");
    let path = file.to_str().unwrap().to_owned();
    std::fs::write(&file, sample.replacen("fact = \"streak\"", "fact = \"moon\"", 1)).unwrap();
    let line = sample[..sample.find("fact = \"streak\"").unwrap()].matches('\n').count() + 1;
    let refused = world.refused(&["rules", "check", &path]);
    assert!(refused.contains(&format!("rules.toml:{line}: fact \"moon\" names nothing")), "{refused}");
    world.refused(&["rules", "apply", &path, "--from", "2096-03-01T00:00:00Z"]);
    assert_eq!(world.run(&["rules", "list"]), "- 1 with the release\n", "nothing of a refused file is kept");

    std::fs::write(&file, sample).unwrap();
    assert!(
        world.run(&["rules", "check", &path]).contains("version 2026-spring, 7 kinds of vehicles, 6 bonuses")
    );
    let early = world.refused(&["rules", "apply", &path, "--from", "2026-03-01T00:00:00Z"]);
    assert!(early.contains("too early"), "{early}");
    let applied = world.run(&["rules", "apply", &path, "--from", "2096-03-01T01:00:00+01:00"]);
    assert!(applied.starts_with("2096-03-01T00:00:00Z 2026-spring applied "), "{applied}");
    assert_eq!(world.run(&["rules", "list"]), format!("- 1 with the release\n{applied}"));
    assert_eq!(world.run(&["rules", "show", "2026-spring"]), sample);
    assert!(world.run(&["rules", "show", "1"]).contains("version = \"1\""));
    world.refused(&["rules", "show", "2027"]);
    let again = world.refused(&["rules", "apply", &path, "--from", "2096-04-01T00:00:00Z"]);
    assert!(again.contains("is applied already"), "{again}");
    let audited: Vec<(String, String, Value)> =
        sqlx::query_as("select module, action, action_details from system_audit_logs")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(audited.len(), 1, "{audited:?}");
    let (module, action, details) = &audited[0];
    assert_eq!((module.as_str(), action.as_str()), ("rewards", "rules.activate"));
    assert_eq!((&details["target"], &details["after"]["document"]), (&json!("2026-spring"), &json!(sample)));
}
