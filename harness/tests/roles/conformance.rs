//! The gateway against its own description, by a program that reads only the description: schemathesis makes requests, good and bad, of
//! every operation, and holds the responses against it.

use std::path::Path;
use std::process::Command;

use uuid::Uuid;

use crate::world::World;

/// What it runs, on Python 3.10 or newer.
const PROGRAM: &str = "from schemathesis.cli import schemathesis; schemathesis()";
/// What a response is held against.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,use_after_free";
/// Event streams do not end, the probes are not ready where no reader runs, and without a session nothing else can be tried.
const LEFT_OUT: &str = "events$|livez|readyz|auth/logout";
/// Generated requests of an operation, beside those of the edges of its schemas. Three times as many found nothing more.
const REQUESTS: &str = "20";

#[test]
fn whatever_is_asked_by_every_role_the_gateway_responds_as_its_description_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local");
    let packages = devstack::schemathesis(&root).unwrap();
    let mut world = World::start_paying("conformance");
    // A driver with an upload in the lists, and others to whom it is foreign.
    world.decided_upload();
    let driver = world.user().to_string();
    let others = ["reviewer", "operator", "service"].map(|role| (role, Uuid::now_v7().to_string()));
    for (role, user) in [("driver", driver)].into_iter().chain(others) {
        let token = world.deployment.command(&["token", "--user", &user, "--role", role]).unwrap();
        let output = Command::new("python3")
            .args(["-c", PROGRAM, "run"])
            .arg(format!("{}/openapi.json", world.deployment.gateway_url()))
            .args(["--header", &format!("Authorization: Bearer {}", token.trim())])
            .args(["--phases", "examples,coverage,fuzzing", "--checks", CHECKS])
            .args(["--exclude-path-regex", LEFT_OUT, "--max-examples", REQUESTS])
            .args(["--seed", "1", "--continue-on-failure", "--request-timeout", "60", "--no-color"])
            .env("PYTHONPATH", &packages)
            .current_dir(world.folder())
            .output()
            .expect("python3 is not installed: ./dev test installs it");
        let said = String::from_utf8_lossy(&output.stdout);
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{role}: {said}\n{wrong}\n{}", world.deployment.log_tail("ingest"));
        let cases = said.lines().rev().find(|line| line.contains(" generated, ")).unwrap_or_default();
        println!("{role}: {}", cases.trim());
        assert!(cases.contains("passed"), "{said}");
    }
    world.finish();
}
