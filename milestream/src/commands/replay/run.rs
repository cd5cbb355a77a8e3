//! A replay, from the command line to its report.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use migrations::MIGRATIONS;
use processors::replay::copy::Copy;
use processors::replay::drive::{Drive, Places};
use processors::replay::pace::Pace;
use processors::replay::publish::{Publisher, TOPICS};
use processors::replay::spec::{Cut, Spec};
use processors::replay::tables;
use processors::reward_rules::{RuleSource, Rulebook, parse};
use runtime::clock::{Clock, SystemClock};
use runtime::producer::{DeliveryTimeout, KafkaProducer};
use runtime::registry::Registry;
use runtime::shadow;
use runtime::topics::Layout;
use runtime::window::Recording;
use schemas::events::{RewardCalculated, RewardGranted, UploadDecided};
use schemas::ids::Micros;
use schemas::topic::Topic;
use sqlx::PgPool;

use super::{Asked, hold, show};
use crate::commands::rules;
use crate::config::Config;
use crate::database;

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Runs it, or goes on with it.
pub async fn run(config: &Config, asked: &Asked) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (spec, book) = asked_for(asked, clock.now())?;
    let (live, shadow) = (database::pool(config)?, database::pool_of(config, &asked.into.schema())?);
    let _held = hold(&live, &asked.into).await?;
    make_schema(&live, &shadow, asked).await?;
    let mut connection = shadow.acquire().await?;
    let standing = tables::begin(&mut connection, &spec, clock.now()).await?;
    if standing.spec != spec {
        bail!(
            "replay {0} was begun with other arguments: choose another name, or take it away with `milestream replay drop {0}`",
            asked.into
        );
    }
    drop(connection);
    if standing.finished_at.is_some() {
        eprintln!("replay {} has come to its end before", asked.into);
        return show::report(config, &asked.into, &asked.files()).await;
    }
    let registry = Registry::new(&config.registry_client())?;
    let kafka = config.kafka_client();
    let publisher = publisher(config, asked, &registry).await?;
    let mut pace = Pace::new(asked.rate);
    let told = Told::default();
    let copying = |topic: Topic, read, total| told.tell(topic.name(), read, total);
    let copy = Copy {
        shadow: &shadow,
        recording: Recording { kafka: &kafka, prefix: &config.kafka.topic_prefix },
        schemas: &registry,
        clock: clock.as_ref(),
        progress: &copying,
    };
    let cut = match standing.cut {
        Some((cut, _)) => cut,
        None => take_cut(&copy, &spec, &shadow).await?,
    };
    if !standing.is_copied {
        copy.run(&cut, &mut pace).await?;
    }
    let book = match book {
        Some(book) => book,
        None => RuleSource::tables(live.clone()).current().await?.as_ref().clone(),
    };
    let places = Places { shadow: &shadow, schemas: &registry, publisher: &publisher };
    let deciding = |done: i64, total: i64| told.tell("decided", done.unsigned_abs(), total.unsigned_abs());
    Drive::new(places, (&cut, spec.steps), book, &clock).run(&mut pace, &deciding).await?;
    tables::finished(&mut *shadow.acquire().await?, clock.now()).await?;
    show::report(config, &asked.into, &asked.files()).await
}

/// What is asked for, held against what can be; with the rules of a file.
fn asked_for(asked: &Asked, now: Micros) -> Result<(Spec, Option<Rulebook>)> {
    let (from, to) = (Micros::from(asked.from), Micros::from(asked.to));
    if from >= to {
        bail!("the window ends at {}, which is not behind its beginning at {}", asked.to, asked.from);
    }
    if to > now {
        bail!("the window ends at {}: it has to lie in the past", asked.to);
    }
    let rules = asked.rules.as_deref().map(rules::read).transpose()?.map(|(_, text)| text);
    let book = rules.as_deref().map(book_of).transpose()?;
    Ok((Spec { from, to, steps: asked.stages, rules }, book))
}

/// Rules that hold from the beginning of time.
fn book_of(text: &str) -> Result<Rulebook> {
    let rules = parse(text).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    Ok(Rulebook::with(vec![(Micros(i64::MIN), rules)]))
}

async fn make_schema(live: &PgPool, shadow: &PgPool, asked: &Asked) -> Result<()> {
    // A name holds letters, digits and underscores only.
    let create = sqlx::AssertSqlSafe(format!("create schema if not exists {}", asked.into.schema()));
    sqlx::query(create).execute(live).await.context("the shadow schema")?;
    MIGRATIONS.run(shadow).await.context("the shadow schema's tables")?;
    tables::create(&mut *shadow.acquire().await?).await.context("the replay's tables")
}

async fn publisher(config: &Config, asked: &Asked, registry: &Registry) -> Result<Publisher> {
    let (kafka, live) = (config.kafka_client(), &config.kafka.topic_prefix);
    let prefix = asked.into.topic_prefix(live);
    shadow::create_topics(&kafka, &Layout { prefix: prefix.clone(), ..config.layout() }, &TOPICS).await?;
    let schemas = [
        registry.id_of::<UploadDecided>(live).await?,
        registry.id_of::<RewardCalculated>(live).await?,
        registry.id_of::<RewardGranted>(live).await?,
    ];
    let outbound = Arc::new(KafkaProducer::new(&kafka, DeliveryTimeout::Unlimited)?);
    Ok(Publisher { outbound, prefix, schemas })
}

async fn take_cut(copy: &Copy<'_>, spec: &Spec, shadow: &PgPool) -> Result<Cut> {
    // Kafka's timestamps are milliseconds: an instant within one begins with the next.
    let milliseconds = |at: Micros| at.0.div_euclid(1_000) + i64::from(at.0.rem_euclid(1_000) > 0);
    let (cut, accepted) = copy.cut(milliseconds(spec.from), milliseconds(spec.to)).await?;
    tables::cut(&mut *shadow.acquire().await?, &cut, accepted).await?;
    Ok(cut)
}

/// Tells how far it is, now and then.
#[derive(Default)]
struct Told(Mutex<Option<Instant>>);

impl Told {
    fn tell(&self, what: &str, done: u64, total: u64) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if done == total || last.is_none_or(|last| last.elapsed() >= TOLD_EVERY) {
            *last = Some(Instant::now());
            eprintln!("{what}: {done} of {total}");
        }
    }
}
