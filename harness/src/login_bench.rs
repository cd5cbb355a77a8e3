//! What signing in costs the gateway, beside the one thing in it that cannot be left out: finding the signer of a signature. And what the
//! check of a token costs, which every request pays.

#![allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use chain::Signer;
use chain::hash::blake2b256;
use devstack::{Part, Stack};
use ingest::KeySet;
use k256::ecdsa::{SigningKey, VerifyingKey};
use runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, open_rates, sibling_binary};
use crate::local_chain::key_of;
use crate::measure::{cpu_seconds, family_cpu_seconds, median};
use crate::scenario::driver_id;
use crate::sign_in::certificate;

/// The genesis block of a solo network: a wallet signs for a network, and none is asked.
const GENESIS: &str = "0x00000000bb55405beed90df9fea5acdb1cb7caba61b0d7513395f42efd30e558";
/// Drivers; each has an account before a round is measured.
const DRIVERS: usize = 32;
/// Logins at once.
const AT_ONCE: usize = 8;
/// What logins a core-second may be at least of bare recoveries.
const SHARE: f64 = 0.7;
/// Microseconds that the check of a token may take.
const CHECK_US: f64 = 60.0;

/// CPU milliseconds of a round, each of one login, one recovery or one check.
struct Round {
    gateway: f64,
    postgres: f64,
    recovery: f64,
    check: f64,
}

/// Runs the bench and prints it; true when both are within their bounds.
///
/// # Errors
/// When a part does not start, or a login is refused.
pub fn run(logins: usize, rounds: usize) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tell = |line: &str| eprintln!("bench: {line}");
    let stack = Stack::start_own(Path::new(".local"), &[Part::Postgres, Part::Kafka, Part::Registry], &tell)?;
    let folder = make_folder(&stack.folder().join("login"))?;
    let mut deployment = deployment(&stack, &folder)?;
    deployment.start(RoleSpec::ingest())?;
    deployment.wait_ready()?;
    let bench = Arc::new(Bench::new(&deployment, &stack)?);
    println!(
        "{logins} logins a round, {AT_ONCE} at once, {rounds} rounds; a login is its challenge and its proof"
    );
    runtime.block_on(bench.logins(DRIVERS * 4))?;
    let mut seen = Vec::new();
    for number in 1..=rounds {
        let before = bench.cpu()?;
        let tokens = runtime.block_on(bench.logins(logins))?;
        let after = bench.cpu()?;
        let of = |at: usize| (after[at] - before[at]) * 1_000.0 / logins as f64;
        let (gateway, postgres) = (of(0), of(1));
        let (recovery, check) = (recoveries(logins)?, bench.checks(&tokens)?);
        println!(
            "round {number}: CPU ms per login: gateway {gateway:.3}, Postgres {postgres:.3}; recovery {recovery:.3}; check of a token {check:.4}"
        );
        seen.push(Round { gateway, postgres, recovery, check });
    }
    deployment.stop();
    stack.stop();
    Ok(judge(&seen))
}

fn judge(rounds: &[Round]) -> bool {
    let of = |value: fn(&Round) -> f64| median(&mut rounds.iter().map(value).collect::<Vec<_>>());
    let share = of(|round| round.recovery) / of(|round| round.gateway);
    let check_us = of(|round| round.check) * 1_000.0;
    println!(
        "medians: logins a core-second {share:.2} of bare recoveries (wanted: at least {SHARE}); check of a token {check_us:.0} us \
         (at most {CHECK_US:.0}); Postgres {:.3} ms per login",
        of(|round| round.postgres)
    );
    share >= SHARE && check_us <= CHECK_US
}

fn deployment(stack: &Stack, folder: &Path) -> Result<Deployment> {
    let mut settings = open_rates();
    let own = [
        ("KAFKA__TOPIC_PREFIX", format!("login-{}-", Uuid::now_v7().simple())),
        ("CHAIN__GENESIS_ID", GENESIS.to_owned()),
        ("CHAIN__WATCH_SECRET", "s".repeat(64)),
    ];
    settings.extend(own.map(|(key, value)| (format!("MILESTREAM_{key}"), value)));
    let (program, logs) = (sibling_binary("milestream")?, stack.logs().join("login"));
    Deployment::prepare(stack, DeploymentConfig { program, folder: folder.to_owned(), logs, settings })
}

/// CPU milliseconds of finding the signer of a signature as the curve's crate does it: twice the work of the gateway's own way.
fn recoveries(count: usize) -> Result<f64> {
    let key = SigningKey::from_slice(&hex::decode(key_of(driver_id("login-0")))?)?;
    let hash = blake2b256(&[b"a certificate"]);
    let (signature, id) = key.sign_prehash_recoverable(&hash)?;
    let before = cpu_seconds()?;
    for _ in 0..count {
        let found = VerifyingKey::recover_from_prehash(&hash, std::hint::black_box(&signature), id)?;
        ensure!(found == *key.verifying_key(), "another signer");
    }
    Ok((cpu_seconds()? - before) * 1_000.0 / count as f64)
}

struct Bench {
    http: reqwest::Client,
    gateway: String,
    domain: String,
    wallets: Vec<Signer>,
    keys: KeySet,
    gateway_pid: u32,
    postgres_pid: u32,
    begun: AtomicUsize,
}

impl Bench {
    fn new(deployment: &Deployment, stack: &Stack) -> Result<Self> {
        runtime::registry::install_tls();
        let gateway = deployment.gateway_url();
        let host = url::Url::parse(&gateway)?.host_str().map(str::to_owned);
        let wallets = (0..DRIVERS).map(|n| Signer::from_hex(&key_of(driver_id(&format!("login-{n}")))));
        let jwks = deployment.environment().iter().rev().find(|(key, _)| key == "MILESTREAM_KEYS__JWKS_FILE");
        let (_, jwks) = jwks.context("the file of public keys")?;
        let role = deployment.roles().into_iter().find(|(name, ..)| name == "ingest");
        Ok(Self {
            http: reqwest::Client::new(),
            domain: host.context("the gateway's host")?,
            wallets: wallets.collect::<Result<_, _>>()?,
            keys: KeySet::from_jwks(&std::fs::read_to_string(jwks)?)?,
            gateway_pid: role.and_then(|(_, _, pid)| pid).context("the gateway's process")?,
            postgres_pid: stack.pid(Part::Postgres).context("Postgres' process")?,
            gateway,
            begun: AtomicUsize::new(0),
        })
    }

    fn cpu(&self) -> Result<[f64; 2]> {
        Ok([family_cpu_seconds(self.gateway_pid)?, family_cpu_seconds(self.postgres_pid)?])
    }

    /// So many logins, several at once; their tokens.
    async fn logins(self: &Arc<Self>, count: usize) -> Result<Vec<String>> {
        let (mut drivers, until) = (JoinSet::new(), self.begun.load(Ordering::SeqCst) + count);
        for _ in 0..AT_ONCE {
            let bench = self.clone();
            drivers.spawn(async move {
                let mut tokens = Vec::new();
                loop {
                    let next = |begun| (begun < until).then_some(begun + 1);
                    let begun = bench.begun.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
                    match begun {
                        Ok(n) => tokens.push(bench.login(&bench.wallets[n % DRIVERS]).await?),
                        Err(_) => return Ok::<_, anyhow::Error>(tokens),
                    }
                }
            });
        }
        let mut tokens = Vec::with_capacity(count);
        while let Some(ended) = drivers.join_next().await {
            tokens.extend(ended??);
        }
        Ok(tokens)
    }

    async fn login(&self, wallet: &Signer) -> Result<String> {
        let address = json!({ "address": wallet.address().checksummed() });
        let challenge = self.post("/v1/auth/challenge", &address).await?;
        let now = SystemClock.now().to_utc().timestamp();
        let tokens =
            self.post("/v1/auth/login", &certificate(&challenge, wallet, &self.domain, now)?).await?;
        Ok(tokens["access_token"].as_str().context("a token")?.to_owned())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}{path}", self.gateway)).body(body.to_string());
        let response =
            request.header("content-type", "application/json").send().await.context("ask the gateway")?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// CPU milliseconds of the check of a token that was not seen before: what was found good once is not checked again.
    fn checks(&self, tokens: &[String]) -> Result<f64> {
        let (now, before) = (SystemClock.now(), cpu_seconds()?);
        for token in tokens {
            let checked = self.keys.check(token, now);
            ensure!(checked.is_ok(), "the token is refused");
        }
        Ok((cpu_seconds()? - before) * 1_000.0 / tokens.len() as f64)
    }
}
