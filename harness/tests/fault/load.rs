//! Drivers who post photos, a few at a time, until they are told that it is enough.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use harness::client::{Client, Photo, Posted};
use harness::photos::another_picture;
use harness::scenario::{Sample, Scenario, driver_id, vehicle_id};
use uuid::Uuid;

use crate::accounts::{Accounts, Places};

/// Drivers at a time; each has one vehicle, so that the order per key matters.
const DRIVERS: usize = 24;
/// Photos of a driver; then others come, whose budgets are not used up.
const TURNS: usize = 9;
/// Uploads that are accepted and not decided yet: enough to keep every role busy, few enough to spread over all faults.
const BACKLOG: usize = 30;
/// Longest time in which a request or a command does not succeed: a restarted broker and a rebalance take some ten seconds.
const LIMIT: Duration = Duration::from_secs(240);

/// What drivers have sent so far, shared with the thread that sends it.
#[derive(Clone, Default)]
pub struct Sent {
    accepted: Arc<Mutex<Vec<Uuid>>>,
    /// The tokens of drivers who claim by hand.
    by_hand: Arc<Mutex<BTreeMap<Uuid, String>>>,
    enough: Arc<AtomicBool>,
}

impl Sent {
    pub fn accepted(&self) -> Vec<Uuid> {
        self.accepted.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    pub fn by_hand(&self) -> BTreeMap<Uuid, String> {
        self.by_hand.lock().unwrap().clone()
    }

    pub fn enough(&self) {
        self.enough.store(true, Ordering::SeqCst);
    }
}

/// Posts in the background, at most so many more than are decided; after each photo that can be read, `dark` that cannot.
pub fn start(
    url: &str,
    places: Places,
    sent: Sent,
    (decided, dark): (Arc<AtomicUsize>, usize),
) -> JoinHandle<()> {
    let client = Client::new(url).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (pool, mut crowd) = (sample_photos(), Vec::new());
        let too_dark = std::fs::read(photos().join("dark.jpg")).unwrap();
        let accounts = runtime.block_on(Accounts::open(&places));
        for n in 0.. {
            while sent.count() > decided.load(Ordering::SeqCst) + BACKLOG
                && !sent.enough.load(Ordering::SeqCst)
            {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            if sent.enough.load(Ordering::SeqCst) {
                return;
            }
            let (read, is_dark) = (n / (dark + 1), n % (dark + 1) > 0);
            let (driver, turn) = (read % DRIVERS, read / DRIVERS);
            if turn % TURNS == 0 && !is_dark {
                if driver == 0 {
                    crowd.clear();
                }
                crowd.push(runtime.block_on(join(&client, &accounts, &sent, read)));
            }
            let (user, token) = &crowd[driver];
            let mut photo = variant(&pool, (read, driver, turn % TURNS), *user);
            if is_dark {
                photo.bytes = another_picture(&too_dark, n).unwrap();
            }
            let id = runtime.block_on(post_until_accepted(&client, token, &photo));
            sent.accepted.lock().unwrap().push(id);
        }
    })
}

/// A driver with a wallet; every fourth claims by hand.
async fn join(client: &Client, accounts: &Accounts, sent: &Sent, n: usize) -> (Uuid, String) {
    let user = driver_id(&format!("fault-{n}"));
    let token = until(|| accounts.driver(user)).await;
    if n % 4 == 1 {
        until(|| client.auto_claim(&token, false)).await;
        sent.by_hand.lock().unwrap().insert(user, token.clone());
    }
    (user, token)
}

/// Tries again until it succeeds, as a persistent person does.
pub async fn until<T, F: Future<Output = anyhow::Result<T>>>(attempt: impl Fn() -> F) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < end, "no success within {LIMIT:?}: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One vehicle's photos, oldest first.
type Series = Vec<(String, Vec<u8>)>;

fn photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos")
}

/// JPEGs of the scenario that are read with certainty, by vehicle. One that sends a single photo earns nothing, so that a load of many such
/// would hardly pay.
fn sample_photos() -> Vec<Series> {
    let folder = photos();
    let mut pool: BTreeMap<(String, u32), Series> = BTreeMap::new();
    let scenario = Scenario::read(&folder).unwrap();
    let posts = |of: &Sample| {
        let same = |other: &&Sample| (&other.driver, other.vehicle) == (&of.driver, of.vehicle);
        scenario.photos.iter().filter(same).count()
    };
    for sample in scenario.verified_jpegs().filter(|sample| posts(sample) > 1) {
        let bytes = std::fs::read(folder.join(&sample.file)).unwrap();
        pool.entry((sample.driver.clone(), sample.vehicle)).or_default().push((sample.file.clone(), bytes));
    }
    let driven = pool.values().filter(|series| series.len() >= 3).count();
    assert!(driven >= 2, "the scenario has {driven} vehicles with three verified JPEGs");
    pool.into_values().collect()
}

/// The `n`-th photo of the run, a day after the driver's one before. Two of three are the driver's own vehicle, further on each time;
/// the third is another vehicle's, whose value is a rollback or a leap. For every sixth the driver has typed what no photo shows, so that a
/// person has to look.
fn variant(pool: &[Series], (n, driver, turn): (usize, usize, usize), user: Uuid) -> Photo {
    let series = &pool[(driver + usize::from(turn % 3 == 2)) % pool.len()];
    let (file_name, bytes) = &series[(turn - turn / 3).min(series.len() - 1)];
    let days_ago = i64::try_from(13usize.saturating_sub(turn)).unwrap();
    let captured = Utc::now() - chrono::Duration::days(days_ago);
    Photo {
        file_name: file_name.clone(),
        bytes: another_picture(bytes, n).unwrap(),
        vehicle_id: Some(vehicle_id(&format!("{user}/1"))),
        claimed_mileage: (n % 6 == 4).then(|| "1".to_owned()),
        captured_at: Some(captured.to_rfc3339_opts(SecondsFormat::Secs, true)),
        ..Photo::default()
    }
}

/// Posts as a persistent app does: the same photo again until the gateway responds that it is accepted.
async fn post_until_accepted(client: &Client, token: &str, photo: &Photo) -> Uuid {
    until(|| async {
        match client.post(token, photo).await? {
            Posted::Accepted { upload_id, .. } => Ok(upload_id),
            Posted::Refused { status, code, detail } if status < 500 => {
                panic!("refused with {status} {code}: {detail}")
            }
            refused => anyhow::bail!("{refused:?}"),
        }
    })
    .await
}
