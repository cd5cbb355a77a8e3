//! Resident memory of every role, idle and while photos flow.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devstack::Stack;
use uuid::Uuid;

use crate::client::{Client, Photo, Posted};
use crate::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, of_a_load, sibling_binary};
use crate::measure::resident_mib;
use crate::photos::with_comment;
use crate::scenario::{Scenario, driver_id};

/// Photos of the load.
const PHOTOS: usize = 40;
/// Longest wait for their verdicts.
const LIMIT: Duration = Duration::from_secs(180);

/// Starts every role, measures it idle and under load, and prints a line a role.
///
/// # Errors
/// When a role does not become ready or the photos are not decided in time.
pub fn run(stack: &Stack) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let logs = stack.logs().join("memory");
    let folder = make_folder(&stack.folder().join("memory"))?;
    let prefix = format!("memory-{}-", Uuid::now_v7().simple());
    let mut settings = of_a_load();
    settings.push(("MILESTREAM_KAFKA__TOPIC_PREFIX".to_owned(), prefix));
    let config = DeploymentConfig { program: sibling_binary("milestream")?, folder, logs, settings };
    let mut deployment = Deployment::prepare(stack, config)?;
    for role in RoleSpec::without_chain() {
        deployment.start(role)?;
    }
    deployment.wait_ready()?;
    let idle = sample(&deployment);
    let load = runtime.block_on(load(&deployment))?;
    println!("resident memory, MiB: role, idle, most while {PHOTOS} photos flowed");
    for (role, idle) in idle {
        println!("  {role:<20} {idle:>7.1} {:>7.1}", load.get(&role).copied().unwrap_or(f64::NAN));
    }
    deployment.stop();
    Ok(())
}

fn sample(deployment: &Deployment) -> BTreeMap<String, f64> {
    let roles = deployment.roles().into_iter();
    roles.filter_map(|(name, _, pid)| Some((name, resident_mib(pid?)?))).collect()
}

/// Posts photos and waits for their verdicts; the most that each role held meanwhile.
async fn load(deployment: &Deployment) -> Result<BTreeMap<String, f64>> {
    let folder = Path::new("examples/photos");
    let scenario = Scenario::read(folder)?;
    let samples: Vec<_> = scenario.verified_jpegs().collect();
    ensure!(!samples.is_empty(), "the scenario has no verified JPEG");
    let client = Client::new(&deployment.gateway_url())?;
    let users: Vec<Uuid> = (0..8).map(|n| driver_id(&format!("memory-{n}"))).collect();
    let tokens = users.iter().map(|user| deployment.token(*user)).collect::<Result<Vec<_>>>()?;
    let mut waiting = Vec::new();
    for n in 0..PHOTOS {
        let file = &samples[n % samples.len()].file;
        let bytes = std::fs::read(folder.join(file)).with_context(|| file.clone())?;
        let bytes = with_comment(&bytes, &format!("memory {n}")).context("a JPEG")?;
        let photo = Photo { file_name: file.clone(), bytes, ..Photo::default() };
        let token = &tokens[n % tokens.len()];
        match client.post(token, &photo).await? {
            Posted::Accepted { upload_id, .. } => waiting.push((token, upload_id)),
            Posted::Refused { status, code, .. } => anyhow::bail!("refused with {status} {code}"),
        }
    }
    let mut most = BTreeMap::new();
    let until = Instant::now() + LIMIT;
    while let Some((token, id)) = waiting.last() {
        ensure!(Instant::now() < until, "{} photos were not decided within {LIMIT:?}", waiting.len());
        for (role, mib) in sample(deployment) {
            let entry = most.entry(role).or_insert(mib);
            *entry = mib.max(*entry);
        }
        if client.upload(token, *id).await?.is_some_and(|view| view.verdict.is_some()) {
            waiting.pop();
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(most)
}
