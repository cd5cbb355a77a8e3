//! The floor of `./dev bench gateway`: takes a photo as a bare body, hashes it as it comes, makes it durable in a file and its folder,
//! writes one row, and waits until Kafka has one record of 500 bytes. It checks nothing and asks nobody.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::{Buf, Filter as _};

/// Bytes of a record: about those of `uploads.received`.
const RECORD: usize = 500;
/// Connections, as many as the gateway has.
const CONNECTIONS: u32 = 16;

struct Floor {
    pool: PgPool,
    producer: FutureProducer,
    topic: String,
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let folder = PathBuf::from(variable("FLOOR_FOLDER")?);
    std::fs::create_dir_all(&folder).context("make the folder")?;
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(&variable("DATABASE_URL")?).await?;
    sqlx::query("create table if not exists upload_floor (id uuid primary key, hash text not null)")
        .execute(&pool)
        .await?;
    // As the gateway's own producer.
    let producer = ClientConfig::new()
        .set("bootstrap.servers", variable("KAFKA_BROKERS")?)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("compression.type", "zstd")
        .create()?;
    let floor = Arc::new(Floor { pool, producer, topic: variable("FLOOR_TOPIC")?, folder });
    let listen: SocketAddr = variable("FLOOR_LISTEN")?.parse().context("FLOOR_LISTEN")?;
    let route = warp::post().and(warp::body::stream()).then(move |body| {
        let floor = floor.clone();
        async move {
            Ok::<_, Infallible>(match floor.take(body).await {
                Ok(()) => StatusCode::ACCEPTED,
                Err(error) => {
                    eprintln!("{error:#}");
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            })
        }
    });
    warp::serve(route.map(|status: Result<StatusCode, Infallible>| status.unwrap_or(StatusCode::OK)))
        .run(listen)
        .await;
    Ok(())
}

impl Floor {
    async fn take<B: Buf>(&self, body: impl Stream<Item = Result<B, warp::Error>>) -> Result<()> {
        let (mut hasher, mut photo) = (Sha256::new(), Vec::new());
        let mut body = std::pin::pin!(body);
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk?;
            let bytes = chunk.copy_to_bytes(chunk.remaining());
            hasher.update(&bytes);
            photo.extend_from_slice(&bytes);
        }
        let (id, hash) = (Uuid::now_v7(), format!("{:x}", hasher.finalize()));
        let path = self.folder.join(id.to_string());
        tokio::task::spawn_blocking(move || keep(&path, &photo)).await??;
        sqlx::query("insert into upload_floor (id, hash) values ($1, $2)")
            .bind(id)
            .bind(&hash)
            .execute(&self.pool)
            .await?;
        let (key, payload) = (id.to_string(), hash.repeat(RECORD / hash.len()));
        let record = FutureRecord::to(&self.topic).key(&key).payload(&payload);
        let delivered = self.producer.send(record, Duration::from_secs(10)).await;
        delivered.map(drop).map_err(|(error, _)| error.into())
    }
}

fn keep(path: &Path, photo: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    std::io::Write::write_all(&mut file, photo)?;
    file.sync_all()?;
    std::fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}
