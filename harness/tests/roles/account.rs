//! What a driver does with an account, on every role: afterwards the stores of accounts are filled to their last field, and no secret that
//! took part stands where secrets must not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use chain::Signer;
use harness::local_chain::key_of;
use harness::sign_in::certificate;
use serde_json::{Value, json};

use crate::search::{self, Mark, documents, is_filled};
use crate::world::World;

/// The stores of accounts, and those that every module writes.
const TABLES: [&str; 6] =
    ["users", "user_sessions", "user_preferences", "user_wallets", "system_config", "system_audit_logs"];
const COLLECTIONS: [&str; 5] =
    ["auth_logs", "security_events", "system_performance_logs", "error_logs", "integration_logs"];

/// A driver at the gateway, with every secret that passed.
struct Driver<'a> {
    world: &'a mut World,
    wallet: Signer,
    token: String,
    secrets: Vec<Mark>,
}

impl Driver<'_> {
    /// A request that is to be responded to with a status; its document.
    fn call(&self, method: &str, path: &str, body: Option<&Value>, status: u16) -> Value {
        let (found, text) = self.world.http_as(&self.token, method, path, body);
        assert_eq!(found, status, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Signs in from a page of `domain`.
    fn login(&self, domain: &str, status: u16) -> Value {
        let address = json!({ "address": self.wallet.address().checksummed() });
        let challenge = self.call("POST", "/v1/auth/challenge", Some(&address), 200);
        let now = chrono::Utc::now().timestamp();
        let proof = certificate(&challenge, &self.wallet, domain, now).unwrap();
        self.call("POST", "/v1/auth/login", Some(&proof), status)
    }

    /// Signs in, and goes on with the new session; its refresh token.
    fn sign_in(&mut self) -> String {
        let gateway = url::Url::parse(&self.world.deployment.gateway_url()).unwrap();
        let tokens = self.login(gateway.host_str().unwrap(), 200);
        self.take(&tokens)
    }

    /// Goes on with new tokens.
    fn take(&mut self, tokens: &Value) -> String {
        let [access, refresh] =
            ["access_token", "refresh_token"].map(|name| tokens[name].as_str().unwrap().to_owned());
        self.secrets.push(("an access token", access.clone()));
        self.secrets.push(("a refresh token", refresh.clone()));
        self.token = access;
        refresh
    }

    /// Changes a refresh token for new tokens.
    fn refresh(&self, refresh: &str, status: u16) -> Value {
        self.call("POST", "/v1/auth/refresh", Some(&json!({ "refresh_token": refresh })), status)
    }
}

/// A server that takes every webhook; its address.
fn receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                let lower = line.to_lowercase();
                length = lower.strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
            }
            let _ = reader.read_exact(&mut vec![0; length]);
            let _ = (&stream).write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
        }
    });
    format!("http://{address}/hook")
}

/// Secrets of the operators: keys and passwords in files and settings.
fn operators(world: &World) -> Vec<Mark> {
    let environment = world.deployment.environment();
    let setting = |name: &str| environment.iter().rev().find(|(key, _)| key == name).unwrap().1.clone();
    let file = |name: &str| std::fs::read_to_string(setting(name)).unwrap().trim().to_owned();
    let pem = file("MILESTREAM_KEYS__SIGNING_KEY_FILE");
    let signing = pem.lines().find(|line| !line.starts_with('-')).unwrap().to_owned();
    vec![
        ("the key of tokens", signing),
        ("the watcher's secret", setting("MILESTREAM_CHAIN__WATCH_SECRET")),
        ("the keystore's password", file("MILESTREAM_CHAIN__KEYSTORE_PASSWORD_FILE")),
        ("the distributor's key", chain::deploy::SOLO_KEYS[1].to_owned()),
    ]
}

/// Keeps the photo store away while something is done.
fn without_photos<T>(world: &World, act: impl FnOnce() -> T) -> T {
    let url = world.deployment.environment().iter().rev().find(|(key, _)| key == "MILESTREAM_PHOTOS__URL");
    let folder: PathBuf = url::Url::parse(&url.unwrap().1).unwrap().to_file_path().unwrap();
    let folder = PathBuf::from(folder.display().to_string().trim_end_matches('/'));
    let away = folder.with_extension("away");
    std::fs::rename(&folder, &away).unwrap();
    std::fs::write(&folder, b"no folder").unwrap();
    let done = act();
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    done
}

/// The account's life.
fn live(driver: &mut Driver<'_>) {
    driver.login("elsewhere.example", 401);
    let first = driver.sign_in();
    let tokens = driver.refresh(&first, 200);
    driver.take(&tokens);
    let refused = driver.refresh(&first, 401);
    assert_eq!(refused["code"], "refresh_reused", "{refused}");
    driver.sign_in();
    driver.call("POST", "/v1/auth/logout", None, 204);
    driver.sign_in();

    let profile = json!({ "email": "driver@example.org", "profile_image": "https://images.example/me.png" });
    driver.call("PATCH", "/v1/me", Some(&profile), 200);
    let mut preferences = driver.call("GET", "/v1/preferences", None, 200);
    let events = json!(["upload_settled", "reward_paid", "security_event"]);
    // Nobody listens there.
    let hook = json!({ "enabled": true, "to": "https://127.0.0.1:9/hook", "events": events });
    for channel in ["webhook", "sms"] {
        preferences["notification_preferences"][channel] = hook.clone();
    }
    driver.call("PUT", "/v1/preferences", Some(&preferences), 200);
    // A receiver on this machine has no certificate, and the gateway takes no other address.
    let plain = driver.world.rows(&format!(
        "update user_preferences set notification_preferences =
           jsonb_set(notification_preferences, '{{webhook,to}}', '\"{}\"') returning user_id::text",
        receiver()
    ));
    assert_eq!(plain.len(), 1);
    let secret = driver.call("POST", "/v1/notices/secret", None, 200);
    driver.secrets.push(("a webhook's secret", secret["secret"].as_str().unwrap().to_owned()));

    let user = driver.world.user().to_string();
    let command = ["keys", "api", "create", "--user", &user, "--name", "fleet", "--scope", "read"];
    let printed = driver.world.deployment.command(&command).unwrap();
    let key = printed.split_whitespace().find(|word| word.starts_with("msk_")).unwrap().to_owned();
    driver.secrets.push(("a service's key", key.clone()));
    let (status, uploads) = driver.world.http_as(&key, "GET", "/v1/uploads", None);
    assert_eq!(status, 200, "{uploads}");
}

/// An operator's part: a flag, and what somebody has to act on.
fn operate(world: &mut World) {
    world.deployment.command(&["flags", "set", "registrations", "off"]).unwrap();
    for list in ["errors", "security-events"] {
        let listed = world.until("something to act on", |world| {
            let listed = world.deployment.command(&[list, "list"]).unwrap();
            (!listed.is_empty()).then_some(listed)
        });
        let id = listed.split_whitespace().next().unwrap();
        world.deployment.command(&[list, "resolve", id, "--notes", "the disk was full"]).unwrap();
        world.until("its end", |world| {
            let listed = world.deployment.command(&[list, "list"]).unwrap();
            (!listed.contains(id)).then_some(())
        });
    }
}

/// Fields of the stores that nothing has filled.
fn unfilled(world: &World) -> Vec<String> {
    let map: Value = serde_json::from_str(include_str!("../../../schemas/data-map.json")).unwrap();
    let fields = |kind: &str, name: &str| -> Vec<String> {
        map[kind][name].as_object().unwrap().keys().cloned().collect()
    };
    let mut missing = Vec::new();
    for table in TABLES {
        let counts = fields("tables", table).into_iter().map(|column| {
            format!(
                "select '{table}.{column}' from (select count({column}) n from {table}) counted where n = 0"
            )
        });
        missing.extend(world.rows(&counts.collect::<Vec<_>>().join(" union all ")));
    }
    let documents = documents(world);
    for collection in COLLECTIONS {
        for field in fields("collections", collection) {
            let mut own = documents.iter().filter(|(name, _)| *name == collection);
            if !own.any(|(_, document)| is_filled(document, &field)) {
                missing.push(format!("{collection}.{field}"));
            }
        }
    }
    missing
}

#[test]
fn a_drivers_life_fills_every_field_of_the_account_stores_and_leaves_no_secret_behind() {
    let mut world = World::start_paying_with("account", &[("MILESTREAM_NOTICES__PRIVATE_WEBHOOKS", "true")]);
    let wallet = Signer::from_hex(&key_of(world.user())).unwrap();
    let mut driver = Driver { world: &mut world, wallet, token: String::new(), secrets: Vec::new() };
    live(&mut driver);
    let mut secrets = driver.secrets;
    let refused = without_photos(&world, || world.refused_sample());
    assert_eq!(refused, (503, "photo_store_unavailable".to_owned()));
    let uploads = world.post_series();
    world.until("the payments", |world| {
        let paid = uploads[1..].iter().all(|upload| {
            world.view(*upload).and_then(|view| view.reward).is_some_and(|reward| reward.is_settled())
        });
        paid.then_some(())
    });
    operate(&mut world);
    let mut missing = Vec::new();
    for _ in 0..100 {
        missing = unfilled(&world);
        if missing.is_empty() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
    assert_eq!(missing, Vec::<String>::new(), "of the data map");
    world.until("every kind of call outside", |world| {
        let services: Vec<String> = documents(world)
            .into_iter()
            .filter(|(collection, _)| *collection == "integration_logs")
            .filter_map(|(_, document)| document.get_str("integration_type").ok().map(str::to_owned))
            .collect();
        ["blockchain", "external_api"]
            .iter()
            .all(|kind| services.iter().any(|found| found == kind))
            .then_some(())
    });

    secrets.extend(operators(&world));
    secrets.extend(
        world.rows("select encode(key, 'hex') from user_keys").into_iter().map(|key| ("a user's key", key)),
    );
    assert_eq!(
        secrets.len(),
        15,
        "four pairs of tokens, two keys of the driver's, four of operators, the user's"
    );
    // What is looked for is found where it is: a token that was never given would be found nowhere.
    assert!(!search::marked("a sentence", &format!("bearer {}", secrets[0].1), &secrets).is_empty());
    let none = Vec::<String>::new();
    assert_eq!(search::in_logs(&world, &secrets), none);
    assert_eq!(search::in_topics(&world, &secrets), none);
    assert_eq!(search::in_metrics(&world, &secrets), none);
    assert_eq!(search::in_documents(&world, &secrets), none);
    world.finish();
}
