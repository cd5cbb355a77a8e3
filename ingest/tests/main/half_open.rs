//! Connections to the database that are open at this end alone: bytes go out and nothing comes back, and nobody is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Bench, Form, jpeg};

/// How long a batch may take here, and a request wait for a connection of the pool.
const LIMIT: Duration = Duration::from_millis(500);
/// TCP would give up after a quarter of an hour; a request is told after twice the limit, and what is left is for a slow machine.
const TOLD: Duration = Duration::from_secs(20);

/// What becomes of a connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    All,
    /// What the database answers is lost.
    Questions,
    Nothing,
}

/// A way to the database that loses the bytes of connections that it is told to, by the port that the database sees.
#[derive(Clone, Default)]
struct Way(Arc<Mutex<BTreeMap<u16, Pass>>>);

impl Way {
    /// A pool that goes by this way.
    async fn pool(&self, direct: &PgPool) -> PgPool {
        let options = (*direct.connect_options()).clone();
        let server = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here: SocketAddr = listener.local_addr().unwrap();
        let way = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server.clone()).await.unwrap();
                let port = server.local_addr().unwrap().port();
                way.0.lock().unwrap().insert(port, Pass::All);
                let ((questions, to_client), (answers, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(way.clone().carry(port, [Pass::All, Pass::Questions], questions, to_server));
                tokio::spawn(way.clone().carry(port, [Pass::All, Pass::All], answers, to_client));
            }
        });
        PgPoolOptions::new()
            .acquire_timeout(LIMIT)
            .max_connections(4)
            .connect_with(options.host("127.0.0.1").port(here.port()))
            .await
            .unwrap()
    }

    async fn carry(self, port: u16, passes: [Pass; 2], mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let pass = self.0.lock().unwrap().get(&port).copied().unwrap_or(Pass::Nothing);
            if !passes.contains(&pass) {
                if count == 0 {
                    // The other end is not told of this either.
                    return std::future::pending().await;
                }
            } else if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }

    /// All connections that are open lose everything from now on; those that follow do not.
    fn lose_all(&self) {
        self.0.lock().unwrap().values_mut().for_each(|pass| *pass = Pass::Nothing);
    }

    /// The connection that ran a statement last loses its answers from now on.
    async fn lose_answers(&self, direct: &PgPool, statement: &str) {
        let port: i32 = sqlx::query_scalar(
            "select client_port from pg_stat_activity
             where application_name = current_setting('application_name') and position($1 in query) > 0 and pid <> pg_backend_pid()",
        )
        .bind(statement)
        .fetch_one(direct)
        .await
        .unwrap();
        self.0.lock().unwrap().insert(port.try_into().unwrap(), Pass::Questions);
    }
}

/// A gateway by such a way, beside one that reaches the database itself.
async fn benches() -> (Bench, Bench, Way) {
    let (direct, way) = (Bench::start().await, Way::default());
    let behind = direct.another_by(way.pool(&direct.pool).await).await;
    (direct, behind, way)
}

#[tokio::test]
async fn uploads_on_connections_that_have_fallen_silent_are_told_so_in_time_and_taken_on_new_ones() {
    let (direct, behind, way) = benches().await;
    let (_, token) = direct.driver().await;
    for seed in [1, 2] {
        assert_eq!(behind.post(&token, &Form::photo(&jpeg(seed))).await.status, 202);
    }
    way.lose_all();
    let mut refused = 0;
    loop {
        let begun = Instant::now();
        let response = behind.post(&token, &Form::photo(&jpeg(3))).await;
        assert!(begun.elapsed() < TOLD, "{:?}", begun.elapsed());
        if [200, 202].contains(&response.status) {
            break;
        }
        response.assert_problem(503, "database_unavailable");
        refused += 1;
        // Four statements that requests share, and four connections of the pool: each is found out once.
        assert!(refused <= 8, "new connections are not used");
    }
    assert!(refused > 0, "nothing fell silent");
    let photos = "select count(*) from photo_hashes";
    assert_eq!(sqlx::query_scalar::<_, i64>(photos).fetch_one(&direct.pool).await.unwrap(), 3);
}

#[tokio::test]
async fn a_reservation_whose_answer_is_lost_is_found_when_the_photo_is_sent_again() {
    let (direct, behind, way) = benches().await;
    let (_, token) = direct.driver().await;
    // The first makes the vehicle and the key; the second is reserved by the statement that requests share.
    for seed in [1, 2] {
        assert_eq!(behind.post(&token, &Form::photo(&jpeg(seed))).await.status, 202);
    }
    way.lose_answers(&direct.pool, "insert into idempotency_keys as k").await;
    let (form, key) = (Form::photo(&jpeg(3)), "idempotency-key: one\r\n");
    behind.post_with(&token, &form, key).await.assert_problem(503, "database_unavailable");
    let reserved: uuid::Uuid =
        sqlx::query_scalar("select upload_id from photo_hashes order by reserved_at desc limit 1")
            .fetch_one(&direct.pool)
            .await
            .unwrap();
    let again = behind.post_with(&token, &form, key).await;
    assert!([200, 202].contains(&again.status), "{again:?}");
    assert_eq!(
        again.json()["upload_id"],
        serde_json::json!(reserved),
        "it was reserved, and is not reserved twice"
    );
    let (photos, keys): (i64, i64) =
        sqlx::query_as("select (select count(*) from photo_hashes), (select count(*) from idempotency_keys)")
            .fetch_one(&direct.pool)
            .await
            .unwrap();
    assert_eq!((photos, keys), (3, 1));
}
