//! The people beside the drivers' photos: reviewers, operators, and drivers who claim by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::client::{Client, ReviewItem};
use harness::deployment::Commands;
use harness::dice::Dice;
use rust_decimal::Decimal;
use schemas::ids::UploadId;
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::load::{Sent, until};

/// Between two corrections, and between two holds.
const CORRECT_EVERY: Duration = Duration::from_secs(8);
const HOLD_EVERY: Duration = Duration::from_secs(20);
/// How long an account is held.
const HELD: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What people have done, as the system has acknowledged it.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// What a reviewer said of an upload: a mileage, or that it is turned down.
    pub reviewed: BTreeMap<UploadId, Option<Decimal>>,
    /// The mileage that an upload was corrected to.
    pub corrected: BTreeMap<UploadId, Decimal>,
    /// Rewards that were cancelled.
    pub cancelled: BTreeSet<Uuid>,
    /// Rewards that were claimed.
    pub claimed: BTreeSet<Uuid>,
    /// How often an account was held and released.
    pub holds: usize,
}

/// The people of a run, at work on a thread of their own.
pub struct Operators {
    done: Arc<Mutex<Done>>,
    /// No more corrections and holds: the run comes to its end.
    closing: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Operators {
    pub fn start(url: &str, database_url: &str, commands: Commands, sent: Sent, seed: u64) -> Self {
        let (done, closing, stop) =
            (Arc::<Mutex<Done>>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let client = Client::new(url).unwrap();
        let database_url = database_url.to_owned();
        let (shared, ends, stopped) = (done.clone(), closing.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = PgPoolOptions::new().max_connections(1).connect_lazy(&database_url).unwrap();
                let reviewer = Uuid::now_v7().to_string();
                let token = ["token", "--user", &reviewer, "--role", "reviewer"];
                let token = until(|| async { commands.run(&token) }).await;
                let (refused, dice) = (BTreeSet::new(), Dice::new(seed));
                let (done, now) = (shared, Instant::now());
                let mut people = People {
                    client,
                    commands,
                    pool,
                    sent,
                    token,
                    done,
                    refused,
                    dice,
                    held: None,
                    corrected_at: now,
                    held_at: now,
                };
                while !stopped.load(Ordering::SeqCst) {
                    // What fails is tried again at the next look: the gateway and the database are killed too.
                    let _ = people.look(ends.load(Ordering::SeqCst)).await;
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            });
        });
        Self { done, closing, stop, thread }
    }

    /// Corrects and holds nothing any more; reviews and claims go on.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub fn finish(self) -> Done {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        self.done.lock().unwrap().clone()
    }
}

struct People {
    client: Client,
    commands: Commands,
    pool: PgPool,
    sent: Sent,
    /// The reviewer's.
    token: String,
    done: Arc<Mutex<Done>>,
    /// Uploads whose correction was refused.
    refused: BTreeSet<Uuid>,
    dice: Dice,
    held: Option<(Uuid, Instant)>,
    corrected_at: Instant,
    held_at: Instant,
}

impl People {
    async fn look(&mut self, closing: bool) -> Result<()> {
        self.release(closing).await?;
        for item in self.client.reviews(&self.token).await? {
            // It stays in the queue until it is decided.
            let _ = self.review(&item).await;
        }
        self.claim().await?;
        if !closing && self.corrected_at.elapsed() >= CORRECT_EVERY {
            self.corrected_at = Instant::now();
            self.correct().await?;
        }
        if !closing && self.held.is_none() && self.held_at.elapsed() >= HOLD_EVERY {
            self.held_at = Instant::now();
            self.hold().await?;
        }
        Ok(())
    }

    /// Of three uploads a person agrees with the reader about one, reads one differently, and turns one down.
    async fn review(&self, item: &ReviewItem) -> Result<()> {
        let id = item.upload_id;
        let before = self.done.lock().unwrap().reviewed.get(&UploadId(id)).copied();
        let kind = id.as_u128() % 3;
        let mileage = before.unwrap_or_else(|| {
            item.reading
                .filter(|_| kind < 2)
                .map(|read| (read.trunc() + Decimal::from(u8::from(kind == 1))).normalize())
        });
        let decision = match mileage {
            Some(mileage) => json!({ "decision": "approve", "mileage": mileage.to_string(), "unit": null }),
            None => json!({ "decision": "reject" }),
        };
        // Noted first: of a response that does not arrive nobody knows whether it was decided.
        self.done.lock().unwrap().reviewed.insert(UploadId(id), mileage);
        self.client.decide(&self.token, id, &decision).await.map(drop)
    }

    /// Three of four rewards that wait for their driver are claimed, the fourth is cancelled.
    async fn claim(&self) -> Result<()> {
        let by_hand = self.sent.by_hand();
        let waiting: Vec<(Uuid, Uuid)> =
            sqlx::query_as("select reward_id, user_id from payouts where state = 'waiting' limit 20")
                .fetch_all(&self.pool)
                .await?;
        for (reward, user) in waiting {
            let Some(token) = by_hand.get(&user) else { continue };
            if reward.as_u128() % 4 == 0 {
                let cancel = ["payouts", "cancel", &reward.to_string(), "--reason", "a run with faults"];
                if self.commands.run(&cancel).is_ok() {
                    self.done.lock().unwrap().cancelled.insert(reward);
                }
            } else if self.client.claim(token, reward).await? < 300 {
                self.done.lock().unwrap().claimed.insert(reward);
            }
        }
        Ok(())
    }

    /// Lowers one verified reading by a kilometre.
    async fn correct(&mut self) -> Result<()> {
        let known: Vec<(Uuid, Decimal)> = sqlx::query_as(
            "select m.upload_id, m.final_mileage from mileage_data m join odometer_uploads u on u.id = m.upload_id
             where u.upload_status = 'verified' and m.distance_traveled > 2 and m.final_mileage > 2 and m.uncorrected_mileage is null",
        )
        .fetch_all(&self.pool)
        .await?;
        let known: Vec<_> = {
            let done = self.done.lock().unwrap();
            let is_new =
                |id: &Uuid| !done.corrected.contains_key(&UploadId(*id)) && !self.refused.contains(id);
            known.into_iter().filter(|(id, _)| is_new(id)).collect()
        };
        if known.is_empty() {
            return Ok(());
        }
        let (id, mileage) = self.dice.one_of(&known);
        let lower = (mileage.trunc() - Decimal::ONE).normalize();
        let (upload, to) = (id.to_string(), lower.to_string());
        match self.commands.run(&[
            "uploads",
            "correct",
            &upload,
            "--mileage",
            &to,
            "--reason",
            "a run with faults",
        ]) {
            Ok(_) => {
                self.done.lock().unwrap().corrected.insert(UploadId(id), lower);
            }
            Err(_) => {
                self.refused.insert(id);
            }
        }
        Ok(())
    }

    async fn hold(&mut self) -> Result<()> {
        let users: Vec<Uuid> = sqlx::query_scalar(
            "select id from users where wallet_address is not null order by created_at desc, id limit 24",
        )
        .fetch_all(&self.pool)
        .await?;
        if !users.is_empty() {
            let user = self.dice.one_of(&users);
            // Whether or not it succeeds, it is released.
            self.held = Some((user, Instant::now()));
            self.commands.run(&["users", "hold", &user.to_string(), "--reason", "a run with faults"])?;
        }
        Ok(())
    }

    async fn release(&mut self, closing: bool) -> Result<()> {
        let Some((user, since)) = self.held else { return Ok(()) };
        if since.elapsed() >= HELD || closing {
            let id = user.to_string();
            self.commands.run(&["users", "release", &id, "--reason", "a run with faults"])?;
            self.held = None;
            self.done.lock().unwrap().holds += 1;
        }
        Ok(())
    }
}
