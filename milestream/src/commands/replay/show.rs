//! Replays that were begun: which there are, what they came to, and their end.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::{Context as _, Result, bail};
use processors::replay::publish::TOPICS;
use processors::replay::report::{self, Summary};
use processors::replay::sheets::{Form, Sheet};
use processors::replay::spec::{Name, SCHEMA_PREFIX};
use runtime::shadow;
use runtime::topics::Layout;
use sqlx::{PgConnection, PgPool};

use super::{Files, hold};
use crate::config::Config;
use crate::database;

/// Prints them, one per line.
pub async fn list(config: &Config) -> Result<()> {
    let schemas: Vec<String> = sqlx::query_scalar(
        "select nspname::text from pg_namespace where starts_with(nspname::text, $1) and to_regclass(quote_ident(nspname) || '.replay') is not null
         order by nspname",
    )
    .bind(SCHEMA_PREFIX)
    .fetch_all(&database::pool(config)?)
    .await?;
    for schema in schemas {
        let shadow = database::pool_of(config, &schema)?;
        let name = schema.strip_prefix(SCHEMA_PREFIX).unwrap_or(&schema);
        // One that was killed before it had noted what it was asked for.
        let summary = report::summary(&mut *shadow.acquire().await?, name).await;
        if matches!(summary, Err(sqlx::Error::RowNotFound)) {
            println!("{name} not begun");
            continue;
        }
        let Summary { from, to, stages, compared, differences, is_finished, .. } = summary?;
        let end = if is_finished { "finished" } else { "not finished" };
        println!(
            "{name} {} {} {stages} {end}: {compared} compared, {differences} differ",
            from.to_utc().to_rfc3339(),
            to.to_utc().to_rfc3339()
        );
    }
    Ok(())
}

/// Prints what differs, and writes it to files.
pub async fn report(config: &Config, name: &Name, files: &Files) -> Result<()> {
    known(&database::pool(config)?, name).await?;
    let shadow = database::pool_of(config, &name.schema())?;
    let mut connection = shadow.acquire().await?;
    let summary = report::summary(&mut connection, &name.to_string()).await?;
    for (form, file) in [(Form::Json, &files.json), (Form::Html, &files.html)] {
        if let Some(file) = file {
            let out = File::create(file).with_context(|| file.display().to_string())?;
            write(&mut connection, form, BufWriter::new(out), &summary).await?;
        }
    }
    write(&mut connection, Form::Text, std::io::stdout(), &summary).await
}

async fn write(connection: &mut PgConnection, form: Form, out: impl Write, summary: &Summary) -> Result<()> {
    let mut sheet = Sheet::begin(form, out, summary)?;
    report::differences(connection, |difference| anyhow::Ok(sheet.add(difference)?)).await?;
    sheet.end()?;
    Ok(())
}

/// Takes schema and topics away.
pub async fn drop(config: &Config, name: &Name) -> Result<()> {
    let live = database::pool(config)?;
    known(&live, name).await?;
    let _held = hold(&live, name).await?;
    let prefix = name.topic_prefix(&config.kafka.topic_prefix);
    let layout = Layout { prefix, ..config.layout() };
    shadow::drop_topics(&config.kafka_client(), &layout, &TOPICS).await?;
    let drop = sqlx::AssertSqlSafe(format!("drop schema {} cascade", name.schema()));
    sqlx::query(drop).execute(&live).await.context("the shadow schema")?;
    println!("replay {name} is gone, with its schema and topics");
    Ok(())
}

/// Refuses a name that no replay has.
pub async fn known(live: &PgPool, name: &Name) -> Result<()> {
    let table: Option<String> = sqlx::query_scalar("select to_regclass($1)::text")
        .bind(format!("{}.replay", name.schema()))
        .fetch_one(live)
        .await?;
    if table.is_none() {
        bail!("there is no replay {name}: `milestream replay list` shows them");
    }
    Ok(())
}
