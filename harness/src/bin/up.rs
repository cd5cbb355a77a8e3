//! `./dev up`: starts everything, posts the sample photos as a client, shows what becomes of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::Utc;
use clap::Parser;
use devstack::{Part, Stack};
use harness::client::{Client, Posted};
use harness::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, open_rates, sibling_binary};
use harness::local_chain::{self, LocalChain, wallet_of};
use harness::payments;
use harness::progress::reporting;
use harness::sample_wallets;
use harness::scenario::{Sample, Scenario, vehicle_id};
use harness::table::{Row, render};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use runtime::snapshot;
use schemas::topic::Topic;
use serde::Serialize;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

/// Longest wait for all verdicts and payments: 20 photos of at most 3 s on two cores are half a minute, and a payment waits a second
/// for company, a second for its block and 12 s for the blocks on top of it.
const LIMIT: Duration = Duration::from_secs(180);
/// Where the compiled contracts are kept between runs.
const CONTRACTS: &str = ".local/contracts";
/// Samples that earn a reward.
const LEAST_PAID: usize = 6;
/// The sample driver whose car is electric, so that what a distance saves is seen.
const ELECTRIC: &str = "ada";
/// How often a line is printed where there is no table.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How often the table is brought up to date.
const REFRESH: Duration = Duration::from_millis(400);

/// Runs Milestream on this machine with sample photos.
#[derive(Debug, Parser)]
struct Arguments {
    /// End by itself: status 0 only when every sample reached its expected outcome.
    #[arg(long)]
    exit: bool,
    /// The folder with the photos and `expected.json`.
    #[arg(long, default_value = "examples/photos")]
    photos: PathBuf,
}

/// The last line on standard output.
#[derive(Debug, Default, Serialize)]
struct Summary {
    posted: usize,
    verified: usize,
    rejected: usize,
    manual_review: usize,
    failed: usize,
    dead_lettered: i64,
    paid: usize,
    confirmed: usize,
    seconds: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("up: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    let announce = |line: &str| eprintln!("up: {line}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scenario = Scenario::read(&arguments.photos)?;
    // The contracts compile while the parts start.
    let compiling = std::thread::spawn(|| local_chain::compile(Path::new(CONTRACTS)).map(drop));
    let stack = Stack::start_with(Path::new(".local"), &[Part::Thor], &announce)?;
    let compiled = reporting(&announce, "compiling the contracts, once", || compiling.join());
    compiled.map_err(|_| anyhow::anyhow!("compiling the contracts panicked"))??;
    let logs = stack.logs().to_owned();
    let folder = make_folder(&stack.folder().join("roles"))?;
    let chain = reporting(&announce, "putting B3TR and the reward pool on the Thor node", || {
        runtime.block_on(LocalChain::deploy(&stack, Path::new(CONTRACTS), &folder))
    })?;
    let pool = chain.contracts().rewards_pool;
    announce(&format!(
        "the reward pool is {pool} on the Thor node ({:.1} s so far)",
        started.elapsed().as_secs_f64()
    ));
    let mut settings = [open_rates(), chain.settings()].concat();
    settings.push(sample_wallets::write(&folder)?);
    let config = DeploymentConfig { program: sibling_binary("milestream")?, folder, logs, settings };
    let prepare =
        "applying migrations, topics and schemas, adding the node, the contracts and the drivers' wallets";
    let mut deployment = reporting(&announce, prepare, || set_up(&stack, config, &chain, &scenario))?;
    reporting(&announce, "starting one process a role", || {
        RoleSpec::every_role().into_iter().try_for_each(|role| deployment.start(role))?;
        deployment.wait_ready()
    })?;
    // Under the labels of prometheus/prometheus.yml, so that the dashboards show this run as they show a deployment.
    for (role, ops, _) in deployment.roles() {
        stack.scrape(role.trim_end_matches("-a"), &role, ops).context("let Prometheus read a role")?;
    }
    show_places(&stack, &deployment);
    let mut rows: Vec<Row> =
        scenario.photos.into_iter().map(|sample| Row { sample, posted: None, view: None }).collect();
    let settled = runtime.block_on(follow(&mut deployment, &arguments.photos, &mut rows))?;
    let paid = runtime.block_on(audit(&chain, &stack, &deployment.gateway_url()))?;
    let good = report(&rows) & settled & paid;
    let dead_lettered = dead_letters(&stack)?;
    let summary = summarize(&rows, dead_lettered, started.elapsed());
    if !arguments.exit {
        announce("running; Ctrl-C ends it");
        runtime.block_on(until_asked_to_stop(&mut deployment))?;
    }
    deployment.stop();
    stack.stop();
    println!("{}", serde_json::to_string(&summary)?);
    Ok(good)
}

/// Everything but the roles: tables, topics, keys, the chain's rows, a wallet for each driver.
fn set_up(
    stack: &Stack,
    config: DeploymentConfig,
    chain: &LocalChain,
    scenario: &Scenario,
) -> Result<Deployment> {
    let deployment = Deployment::prepare(stack, config)?;
    chain.register(&deployment)?;
    let drivers: BTreeSet<Uuid> = scenario.photos.iter().map(Sample::user).collect();
    for driver in drivers {
        let (driver, address) = (driver.to_string(), wallet_of(driver).to_string());
        deployment.command(&["wallet", "add", "--user", &driver, "--address", &address])?;
    }
    sample_wallets::add_reviewers(&deployment)?;
    Ok(deployment)
}

/// Compares what the node's own logs say with the tables, and what payments say for themselves with the pages that they link; true when
/// all say the same, and enough was paid.
async fn audit(chain: &LocalChain, stack: &Stack, gateway: &str) -> Result<bool> {
    let contracts = chain.contracts();
    let proven = payments::with_proofs(&chain.node()?, contracts.rewards_pool, contracts.app_id).await?;
    let pool = PgPoolOptions::new().max_connections(2).connect(stack.database_url()).await?;
    let paid: Vec<_> = proven.iter().map(|(paid, _)| paid.clone()).collect();
    let mut differences = payments::differences(&pool, &paid).await?;
    let (untrue, grams) = payments::untrue(&pool, &Client::new(gateway)?, &proven).await?;
    differences.extend(untrue);
    for difference in &differences {
        eprintln!("up: {difference}");
    }
    let (count, sum) = (paid.len(), payments::sum(&paid));
    if differences.is_empty() {
        eprintln!(
            "up: the node's logs: {count} rewards, {sum} B3TR, equal to rewards and reward_transactions; each names its page, which opens, \
             and the carbon saved, {grams} g in all"
        );
    }
    if count < LEAST_PAID {
        eprintln!("up: {count} rewards were paid, {LEAST_PAID} are expected");
    }
    Ok(differences.is_empty() && count >= LEAST_PAID)
}

fn show_places(stack: &Stack, deployment: &Deployment) {
    let gateway = deployment.gateway_url();
    eprintln!(
        "\n  pages       {gateway}/  (one click signs in as a sample driver; reviewers: {gateway}/review)"
    );
    eprintln!("  gateway     {gateway}  (openapi: /openapi.json)");
    eprintln!("  postgres    psql {}", stack.database_url());
    eprintln!("  mongodb     {}", stack.mongodb_uri());
    eprintln!("  kafka       {}", stack.kafka_brokers());
    eprintln!("  registry    {}", stack.schema_registry_url());
    eprintln!("  thor        {}", stack.thor_url());
    for (name, ops, _) in deployment.roles() {
        eprintln!("  {name:<19} http://{ops}/metrics");
    }
    eprintln!("  logs        {}\n", stack.logs().display());
}

/// Posts every photo in order and follows all until they are settled; false when the time ran out.
async fn follow(deployment: &mut Deployment, folder: &Path, rows: &mut [Row]) -> Result<bool> {
    let client = Client::new(&deployment.gateway_url())?;
    let mut tokens = std::collections::BTreeMap::new();
    for row in rows.iter() {
        let user = row.sample.user();
        if let std::collections::btree_map::Entry::Vacant(entry) = tokens.entry(user) {
            entry.insert(deployment.token(user)?);
        }
    }
    let screen = Screen::default();
    let now = Utc::now();
    for at in 0..rows.len() {
        let photo = rows[at].sample.photo(folder, now)?;
        let token = &tokens[&rows[at].sample.user()];
        rows[at].posted = Some(client.post(token, &photo).await?);
        let sample = &rows[at].sample;
        if sample.driver == ELECTRIC && rows[..at].iter().all(|row| row.sample.driver != ELECTRIC) {
            let vehicle = vehicle_id(&format!("{}/{}", sample.driver, sample.vehicle));
            client.vehicle_runs_on(token, vehicle, "electric").await?;
        }
        refresh(&client, &tokens, rows).await?;
        screen.show(rows);
    }
    let until = Instant::now() + LIMIT;
    while !rows.iter().all(Row::is_settled) && Instant::now() < until {
        tokio::time::sleep(REFRESH).await;
        deployment.tend()?;
        refresh(&client, &tokens, rows).await?;
        screen.show(rows);
    }
    screen.end(rows);
    Ok(rows.iter().all(Row::is_settled))
}

async fn refresh(
    client: &Client,
    tokens: &std::collections::BTreeMap<uuid::Uuid, String>,
    rows: &mut [Row],
) -> Result<()> {
    for row in rows.iter_mut().filter(|row| !row.is_settled()) {
        if let Some(Posted::Accepted { upload_id, .. }) = row.posted {
            row.view = client.upload(&tokens[&row.sample.user()], upload_id).await?;
        }
    }
    Ok(())
}

/// Draws the table over itself on a terminal; elsewhere a line every two seconds, and the table at the end.
#[derive(Default)]
struct Screen {
    terminal: Option<console::Term>,
    lines: std::cell::Cell<usize>,
    reported: std::cell::Cell<Option<Instant>>,
}

impl Screen {
    fn show(&self, rows: &[Row]) {
        let terminal = self.terminal.clone().unwrap_or_else(console::Term::stderr);
        if !terminal.is_term() {
            return self.report(rows);
        }
        let text = render(rows);
        // A terminal that is gone is no reason to end.
        let _ = terminal.clear_last_lines(self.lines.get());
        let _ = terminal.write_line(&text);
        self.lines.set(text.lines().count());
    }

    fn report(&self, rows: &[Row]) {
        if self.reported.get().is_none_or(|reported| reported.elapsed() >= REPORT_EVERY) {
            let settled = rows.iter().filter(|row| row.is_settled()).count();
            eprintln!(
                "up: {settled} of {} photos are decided, and paid where they earn a reward",
                rows.len()
            );
            self.reported.set(Some(Instant::now()));
        }
    }

    fn end(&self, rows: &[Row]) {
        if console::Term::stderr().is_term() {
            self.show(rows);
        } else {
            eprintln!("{}", render(rows));
        }
    }
}

/// Prints what differs from the expectations; true when nothing does.
fn report(rows: &[Row]) -> bool {
    let mut good = true;
    for row in rows {
        let Some(posted) = &row.posted else { continue };
        for difference in row.sample.differences(posted, row.view.as_ref()) {
            good = false;
            eprintln!("up: {} of {}: {difference}", row.sample.file, row.sample.driver);
        }
    }
    good
}

fn summarize(rows: &[Row], dead_lettered: i64, elapsed: Duration) -> Summary {
    let verdicts = |verdict: &str| {
        let is = |row: &&Row| row.view.as_ref().is_some_and(|view| view.verdict.as_deref() == Some(verdict));
        rows.iter().filter(is).count()
    };
    let payouts = |wanted: fn(&str) -> bool| {
        rows.iter()
            .filter_map(|row| row.view.as_ref()?.payout.as_ref()?.status.as_deref())
            .filter(|status| wanted(status))
            .count()
    };
    Summary {
        posted: rows.iter().filter(|row| row.posted.is_some()).count(),
        verified: verdicts("verified"),
        rejected: verdicts("rejected"),
        manual_review: verdicts("review"),
        failed: verdicts("failed"),
        dead_lettered,
        paid: payouts(|status| matches!(status, "pending" | "confirmed")),
        confirmed: payouts(|status| status == "confirmed"),
        seconds: (elapsed.as_secs_f64() * 10.0).round() / 10.0,
    }
}

/// Records on the dead-letter topic.
fn dead_letters(stack: &Stack) -> Result<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", stack.kafka_brokers())
        .create()
        .context("kafka client")?;
    let extents = snapshot::extents(&consumer, Topic::DeadLetters.name()).context("dead-letter topic")?;
    Ok(extents.values().map(|(low, high)| high - low).sum())
}

async fn until_asked_to_stop(deployment: &mut Deployment) -> Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
            _ = terminated.recv() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => deployment.tend()?,
        }
    }
}
