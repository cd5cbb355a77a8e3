//! docker-compose.yml and the Dockerfile, without a container engine: what they name must be what the code has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use harness::deployment::{RoleSpec, sibling_binary};
use processors::pipeline::{Kind, STAGES};
use runtime::health::Health;
use runtime::metrics::Metrics;
use serde_yaml_ng::Value;

use crate::repository;

/// The image of the roles; its tag is the release.
const OWN_IMAGE: &str = "milestream";

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap()
}

/// The file as compose sees it: anchors merged, variables filled in.
fn compose() -> Value {
    let mut value: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap();
    // One pass merges one level, and a role's anchor holds the one of all own services.
    for _ in 0..2 {
        value.apply_merge().unwrap();
    }
    interpolate(&mut value);
    value
}

/// Fills in the variables of every text; keys and comments have none.
fn interpolate(value: &mut Value) {
    match value {
        Value::String(text) => *text = interpolated(text),
        Value::Sequence(items) => items.iter_mut().for_each(interpolate),
        Value::Mapping(pairs) => pairs.iter_mut().for_each(|(_, value)| interpolate(value)),
        _ => {}
    }
}

/// `${NAME:?why}` as a secret that the user gave, `${PORT:-8080}` as a port that the user chose, `$$` as `$`.
fn interpolated(text: &str) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            filled.push('$');
            rest = after;
            continue;
        }
        let (inner, after) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')).expect("${…}");
        let (name, rule) = inner.split_once(':').expect("a required variable or one with a default");
        match rule.split_at(1) {
            ("?", _) => filled.push_str(&format!("given{}", name.replace('_', ""))),
            ("-", default) => filled.push_str(&format!("1{default}")),
            _ => panic!("{inner}: neither :? nor :-"),
        }
        rest = after;
    }
    filled + rest
}

fn services(compose: &Value) -> BTreeMap<&str, &Value> {
    let services = compose["services"].as_mapping().unwrap();
    services.iter().map(|(name, service)| (name.as_str().unwrap(), service)).collect()
}

/// A command line's words; those in double quotes may hold spaces.
fn shell_words(text: &str) -> Vec<String> {
    let parts = text.split('"').enumerate();
    let words = parts.flat_map(|(at, part)| {
        if at % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
    });
    words.collect()
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_sequence().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let Some(pairs) = service["environment"].as_mapping() else { return BTreeMap::new() };
    let text =
        |value: &Value| value.as_str().map_or_else(|| value.as_i64().unwrap().to_string(), str::to_owned);
    pairs.iter().map(|(key, value)| (text(key), text(value))).collect()
}

fn is_own(service: &Value) -> bool {
    service["image"].as_str().unwrap().split(':').next() == Some(OWN_IMAGE)
}

/// Services that run once: somebody waits for their end.
fn run_once(compose: &Value) -> BTreeSet<&str> {
    let waits =
        services(compose).into_values().filter_map(|service| service["depends_on"].as_mapping()).flatten();
    waits
        .filter(|(_, wait)| wait["condition"] == "service_completed_successfully")
        .map(|(name, _)| name.as_str().unwrap())
        .collect()
}

fn binary() -> PathBuf {
    let binary = sibling_binary("milestream").unwrap();
    assert!(binary.is_file(), "{} is missing: build it with `cargo build -p milestream`", binary.display());
    binary
}

/// Runs the binary with these settings and no others, where no milestream.toml is.
fn milestream<K: AsRef<str>>(arguments: &[K], environment: &BTreeMap<String, String>) -> Output {
    let nowhere = tempfile::tempdir().unwrap();
    Command::new(binary())
        .args(arguments.iter().map(AsRef::as_ref))
        .env_clear()
        .envs(environment)
        .current_dir(nowhere.path())
        .output()
        .unwrap()
}

fn shown(environment: &BTreeMap<String, String>) -> String {
    let output = milestream(&["config", "show"], environment);
    assert!(output.status.success(), "{environment:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `30s`, `2m`.
fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        other => panic!("{text}: {other} is neither s nor m"),
    };
    Duration::from_secs(number.parse::<u64>().unwrap() * unit)
}

#[test]
fn every_image_is_pinned_by_version() {
    let compose = compose();
    let toolchain: toml::Value = toml::from_str(&read("rust-toolchain.toml")).unwrap();
    let dockerfile = read("Dockerfile");
    let bases: Vec<&str> =
        dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next()).collect();
    let builder = format!("rust:{}-slim-bookworm", toolchain["toolchain"]["channel"].as_str().unwrap());
    assert_eq!(bases.first(), Some(&builder.as_str()), "as rust-toolchain.toml says");
    let images = services(&compose).into_values().map(|service| service["image"].as_str().unwrap());
    for image in images.chain(bases) {
        let (name, tag) = image.split_once(':').unwrap_or((image, ""));
        let numbers = tag.trim_start_matches('v').split('-').next().unwrap_or_default();
        let numbers: Vec<&str> = numbers.split('.').collect();
        let pinned = numbers.len() >= 2 && numbers.iter().all(|number| number.parse::<u32>().is_ok());
        assert!(pinned, "{image} is not pinned to major.minor or closer");
        if name == OWN_IMAGE {
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "the release of Cargo.toml");
        }
    }
}

#[test]
fn every_service_has_a_health_check_or_runs_once() {
    let compose = compose();
    let once = run_once(&compose);
    for (name, service) in services(&compose) {
        let check = &service["healthcheck"];
        if once.contains(name) {
            assert_eq!(check["disable"], true, "{name} ends: its status tells");
            assert!(service["restart"].as_str().unwrap().starts_with("on-failure:"), "{name}");
        } else {
            assert!(strings(&check["test"]).len() > 1, "{name} has no health check");
            assert!(
                duration(check["timeout"].as_str().unwrap()) <= duration(check["interval"].as_str().unwrap())
            );
            assert_eq!(service["restart"], "unless-stopped", "{name}");
        }
        let profiles = strings(&service["profiles"]);
        assert!(profiles == ["core"] || profiles == ["monitoring"], "{name}: {profiles:?}");
    }
}

#[test]
fn ports_are_published_on_loopback_only() {
    let compose = compose();
    let mut published = BTreeSet::new();
    for (name, service) in services(&compose) {
        assert!(service["network_mode"].is_null(), "{name}");
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port} to other machines");
            assert!(published.insert(port), "{name} takes a port twice");
        }
    }
    assert!(!published.is_empty());
}

#[test]
fn every_password_comes_from_the_user() {
    let text = read("docker-compose.yml");
    let words = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once(": "));
    let mut passwords = 0;
    for (key, value) in words {
        let named = key.trim().ends_with("PASSWORD") || key.trim().ends_with("SECRET");
        let secret = named || value.contains("://milestream:");
        if secret {
            passwords += 1;
            assert!(value.contains("_PASSWORD:?"), "{}: {value} is no ${{NAME:?why}}", key.trim());
            let name = value.split_once("${").unwrap().1.split(':').next().unwrap();
            let made = text.lines().find(|line| line.contains("for name in")).unwrap();
            let made = made.split([' ', ';']).any(|word| format!("{word}_PASSWORD") == name);
            assert!(made, "the head of the file does not make {name}");
        }
    }
    assert!(passwords >= 5, "{passwords} passwords: the file is not read");
}

#[test]
fn every_role_has_a_service_and_every_command_parses() {
    let compose = compose();
    let services = services(&compose);
    let commands: Vec<Vec<String>> = services
        .values()
        .filter(|service| is_own(service) && service["entrypoint"].is_null())
        .map(|service| strings(&service["command"]))
        .collect();
    // A stage whose topic no other stage reads is waited for by nobody: whether it runs there is for the deployment to say.
    let waited_for = |role: &RoleSpec| {
        let stage = STAGES.iter().find(|row| role.arguments == ["process", row.name]);
        let read = |topic| STAGES.iter().any(|row| row.inputs.contains(&topic));
        stage.is_none_or(|row| row.kind == Kind::Paying || read(row.output))
    };
    let mut roles = RoleSpec::every_role();
    roles.retain(waited_for);
    for role in &roles {
        let count = commands.iter().filter(|command| **command == role.arguments).count();
        assert_eq!(count, 1, "services that run {:?}", role.arguments);
    }
    assert_eq!(commands.len(), roles.len(), "a service for what is no role");
    let setup = strings(&services["setup"]["command"]);
    let text = read("docker-compose.yml");
    let by_hand = text.lines().filter_map(|line| line.split_once("--entrypoint milestream setup "));
    let once = setup[0].split(';').map(|one| shell_words(one.trim().strip_prefix("milestream ").unwrap()));
    // A setting that is refused ends each command after it was parsed (status 1) and before it does anything; a command
    // line that does not parse ends with clap's status 2.
    let refused = BTreeMap::from([("MILESTREAM_KAFKA__REPLICATION".to_owned(), "0".to_owned())]);
    for command in commands.into_iter().chain(once).chain(by_hand.map(|(_, words)| shell_words(words))) {
        let output = milestream(&command, &refused);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("kafka.replication"), "{command:?}: {said}");
    }
}

#[test]
fn every_variable_of_a_role_reaches_its_configuration() {
    let compose = compose();
    let defaults = shown(&BTreeMap::new());
    let mut seen = BTreeSet::new();
    for (name, service) in services(&compose).into_iter().filter(|(_, service)| is_own(service)) {
        let environment = environment(service);
        // All together they are accepted, and each alone changes something.
        shown(&environment);
        for (key, value) in environment {
            if seen.insert((key.clone(), value.clone())) {
                let one = BTreeMap::from([(key.clone(), value)]);
                assert_ne!(shown(&one), defaults, "{name}: {key} sets nothing");
            }
        }
    }
    assert!(seen.len() > 8, "the environments are not read");
}

#[test]
fn a_stop_may_take_longer_than_the_drain() {
    let compose = compose();
    for (name, service) in services(&compose) {
        if is_own(service) && !run_once(&compose).contains(name) {
            let config: toml::Value = toml::from_str(&shown(&environment(service))).unwrap();
            let drain = config["engine"]["drain_budget_ms"].as_integer().unwrap();
            let grace = duration(service["stop_grace_period"].as_str().unwrap());
            assert!(grace > 2 * Duration::from_millis(drain.try_into().unwrap()), "{name}");
        }
    }
}

#[test]
fn what_a_service_waits_for_or_mounts_exists() {
    let compose = compose();
    let services = services(&compose);
    for (name, service) in &services {
        for (part, wait) in service["depends_on"].as_mapping().into_iter().flatten() {
            let part = part.as_str().unwrap();
            let waited = services.get(part).unwrap_or_else(|| panic!("{name} waits for {part}"));
            let ends = wait["condition"] == "service_completed_successfully";
            assert!(ends || wait["condition"] == "service_healthy", "{name}: {part}");
            // Monitoring comes on top of core, never the other way round.
            assert!(
                waited["profiles"] == service["profiles"] || waited["profiles"][0] == "core",
                "{name}: {part}"
            );
        }
        for volume in strings(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(repository().join(source).exists(), "{name} mounts {source}");
                assert!(volume.ends_with(":ro"), "{name} may write to {source}");
            } else {
                assert!(compose["volumes"].as_mapping().unwrap().contains_key(source), "{name}: {source}");
            }
        }
    }
    let mounts = |volume: &str| -> Vec<(&str, bool)> {
        let mounted = services.iter().flat_map(|(name, service)| {
            let mounts = strings(&service["volumes"]).into_iter().filter(|mount| mount.starts_with(volume));
            mounts.map(|mount| (*name, !mount.ends_with(":ro"))).collect::<Vec<_>>()
        });
        mounted.collect()
    };
    assert_eq!(mounts("signing:"), [("setup", true)], "who has the signing key, and may write it");
    let payers = [("chain_submission", false), ("setup", true)];
    assert_eq!(mounts("distributor:"), payers, "who has the distributor's key, and may write it");
    let readers = [("odometer_reading", false), ("setup", true)];
    assert_eq!(mounts("services:"), readers, "who opens the keys of reading services, and may write them");
}

#[test]
fn prometheus_and_grafana_ask_services_that_exist() {
    let compose = compose();
    let services = services(&compose);
    let config: Value = serde_yaml_ng::from_str(&read("prometheus/prometheus.yml")).unwrap();
    let jobs = config["scrape_configs"][0]["static_configs"].as_sequence().unwrap();
    let mut watched = BTreeSet::new();
    for job in jobs {
        let target = job["targets"][0].as_str().unwrap();
        let (host, port) = target.split_once(':').unwrap();
        assert_eq!(job["labels"]["job"], host);
        let listen = environment(services[host])["MILESTREAM_OPS__LISTEN"].clone();
        assert_eq!(listen, format!("0.0.0.0:{port}"), "{host}");
        watched.insert(host);
    }
    let once = run_once(&compose);
    let roles = services.iter().filter(|(name, service)| is_own(service) && !once.contains(*name));
    assert_eq!(watched, roles.map(|(name, _)| *name).collect());
    let sources: Value =
        serde_yaml_ng::from_str(&read("grafana/provisioning/datasources/parts.yml")).unwrap();
    let sources = sources["datasources"].as_sequence().unwrap();
    for source in sources {
        let url = source["url"].as_str().unwrap();
        let host = url.trim_start_matches("http://").split(':').next().unwrap();
        assert!(services.contains_key(host), "Grafana asks {url}");
    }
    let known: Vec<&str> = sources.iter().map(|source| source["uid"].as_str().unwrap()).collect();
    let dashboard: Value = serde_yaml_ng::from_str(&read("grafana/dashboards/pipeline.json")).unwrap();
    for variable in dashboard["templating"]["list"].as_sequence().unwrap() {
        if variable["type"] == "datasource" {
            let chosen = variable["current"]["value"].as_str().unwrap();
            assert!(known.contains(&chosen), "{chosen} is not provisioned");
        }
    }
}

#[test]
fn secrets_and_what_was_built_stay_out_of_the_image() {
    let ignored = read(".dockerignore");
    for path in ["/.env", "/keys", "/.git", "/target", "/.local", "*.pem", "/milestream.toml"] {
        assert!(ignored.lines().any(|line| line == path), "{path} goes into the image's context");
    }
    let dockerfile = read("Dockerfile");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    assert!(last.contains("\nUSER milestream\n"), "the roles must not run as root");
    let workspace: toml::Value = toml::from_str(&read("Cargo.toml")).unwrap();
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let member = format!("/{}", member.as_str().unwrap());
        assert!(!ignored.lines().any(|line| line == member), "cargo needs {member} to read the workspace");
    }
}

#[test]
fn the_only_key_in_the_file_is_the_published_one_of_a_solo_node() {
    let text = read("docker-compose.yml");
    let is_key = |word: &str| word.len() == 64 && word.bytes().all(|letter| letter.is_ascii_hexdigit());
    let keys: Vec<&str> = text.split_whitespace().filter(|word| is_key(word)).collect();
    let published = read("chain/src/deploy/mod.rs");
    let published: Vec<&str> = published.split('"').filter(|word| is_key(word)).collect();
    assert_eq!(keys, [published[1]], "the distributor of `chain::deploy::SOLO_KEYS`");
}

/// The health check of the roles, as compose runs it, with the server's port in place of the container's.
fn health_check(port: u16) -> bool {
    let compose = compose();
    let test = strings(&services(&compose)["ingest"]["healthcheck"]["test"]);
    let image = read("Dockerfile");
    let image = image.lines().find_map(|line| line.trim().strip_prefix("CMD [\"bash\"")).unwrap();
    let image = strings(&serde_yaml_ng::from_str(&format!("[\"bash\"{image}")).unwrap());
    assert_eq!(test[1..], image, "the image's own health check");
    let script = test[3].replace("/9100", &format!("/{port}"));
    Command::new(&test[1]).arg(&test[2]).arg(script).output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_follows_readiness() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let health = Health::default();
    let server = warp::serve(runtime::ops::routes(health.clone(), Metrics::new().unwrap().exporter))
        .incoming(listener);
    let server = tokio::spawn(server.run());
    let check = move || tokio::task::spawn_blocking(move || health_check(port));
    assert!(!check().await.unwrap(), "a role that is not ready");
    health.ready("stage");
    assert!(check().await.unwrap(), "a role that is ready");
    server.abort();
    let _ = server.await;
    assert!(!check().await.unwrap(), "nobody listens");
}
