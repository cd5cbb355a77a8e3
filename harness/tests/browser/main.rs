//! The pages in a real browser, on the whole system: a driver from the first click to the claimed and paid reward, and reviewers at their
//! desk. The steps are in `drivers.mjs` and `reviewers.mjs` beside this file; what they saw is kept as pictures in
//! `.local/logs/pages-pictures`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use devstack::{Part, Stack};
use harness::deployment::{DeploymentConfig, make_folder, open_rates, sibling_binary};
use harness::local_chain::LocalChain;
use harness::{Deployment, RoleSpec, sample_wallets};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::mail::MailServer;

mod mail;

/// What distributions call the browser.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

fn browser() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| BROWSERS.map(|name| folder.join(name)))
        .find(|file| file.is_file());
    found.expect("Chromium is not installed (Debian package chromium): ./dev test installs it")
}

/// Every role, with a chain, a database and topics of its own, where photos may name registered vehicles only.
fn start(stack: &Stack, runtime: &tokio::runtime::Runtime, root: &Path, mails: &MailServer) -> Deployment {
    let unique = format!("pages-{}", Uuid::now_v7().simple());
    let folder = make_folder(&stack.folder().join(&unique)).unwrap();
    let database = unique.replace('-', "_");
    let url = runtime.block_on(async {
        let mut admin = PgConnection::connect(stack.database_url()).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("create database {database}")))
            .execute(&mut admin)
            .await
            .unwrap();
        let mut url = url::Url::parse(stack.database_url()).unwrap();
        url.set_path(&database);
        url.to_string()
    });
    let chain = runtime.block_on(LocalChain::deploy(stack, &root.join("contracts"), &folder)).unwrap();
    let mut settings = [open_rates(), chain.settings()].concat();
    settings.push(("DATABASE_URL".into(), url));
    settings.push(("MILESTREAM_MONGODB__DATABASE".into(), database));
    settings.push(("MILESTREAM_KAFKA__TOPIC_PREFIX".into(), format!("{unique}.")));
    settings.push(("MILESTREAM_VEHICLES__MUST_BE_REGISTERED".into(), "true".into()));
    // So that the second photo of a vehicle asks for two people.
    settings.push(("MILESTREAM_REVIEWS__SECOND_PERSON_ABOVE_KM".into(), "100".into()));
    settings.push(("MILESTREAM_NOTICES__SMTP_URL".into(), format!("smtp://{}", mails.address)));
    settings.push(("MILESTREAM_NOTICES__FROM".into(), "Milestream <notices@example.org>".into()));
    settings.push(sample_wallets::write(&folder).unwrap());
    let logs = stack.logs().join("pages");
    let program = sibling_binary("milestream").unwrap();
    let mut deployment =
        Deployment::prepare(stack, DeploymentConfig { program, folder, logs, settings }).unwrap();
    chain.register(&deployment).unwrap();
    sample_wallets::add_reviewers(&deployment).unwrap();
    for role in RoleSpec::every_role() {
        deployment.start(role).unwrap();
    }
    deployment.wait_ready().unwrap();
    deployment
}

/// Runs the steps of a file beside this one.
fn walk(steps: &str, deployment: &Deployment, (axe, mails): (&Path, &MailServer), pictures: &Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("node")
        .arg(here.join("tests/browser").join(steps))
        .env("BROWSER", browser())
        .env("GATEWAY", deployment.gateway_url())
        .env("AXE", axe)
        .env("MAILS", &mails.file)
        .env("PICTURES", pictures)
        .env("PHOTOS", here.join("../examples/photos"))
        .output()
        .expect("node is not installed (Debian package nodejs): ./dev test installs it");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{steps}: {wrong}\n{}", deployment.log_tail("ingest"));
}

#[test]
fn a_driver_is_paid_and_reviewers_decide_on_pages_without_a_barrier() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local");
    let axe = devstack::axe(&make_folder(&root).unwrap()).unwrap();
    let stack = Stack::start_with(&root, &[Part::Thor], &|line| eprintln!("{line}")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mails = MailServer::start(&make_folder(&root.join("logs")).unwrap());
    let deployment = start(&stack, &runtime, &root, &mails);
    let pictures = make_folder(&root.join("logs/pages-pictures")).unwrap();
    walk("drivers.mjs", &deployment, (&axe, &mails), &pictures);
    walk("reviewers.mjs", &deployment, (&axe, &mails), &pictures);
    deployment.stop();
}
