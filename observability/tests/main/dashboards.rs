//! Every query of every panel, asked of a real Prometheus and a real PostgreSQL.

use std::time::{Duration, Instant};

use devstack::{Part, Stack};
use observability::variables::{fill_promql, fill_sql};
use observability::{Dashboard, Query};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use url::Url;

use crate::{exporter, repository};

/// Scrapes until a rate over a minute is a number.
const SCRAPES: f64 = 3.0;
/// Three scrapes take 6 s; a busy machine may take longer.
const LIMIT: Duration = Duration::from_secs(180);

/// One upload of every outcome, a paid reward, a transaction under way, now: a panel without rows would show that its query
/// finds nothing.
const ROWS: &str = "
insert into users (id) values ('00000000-0000-7000-8000-000000000001');
insert into odometer_uploads (id, user_id, upload_status, created_at, processed_at)
select ('00000000-0000-7000-8000-0000000001' || lpad(n::text, 2, '0'))::uuid, '00000000-0000-7000-8000-000000000001',
    status::odometer_uploads_upload_status, now() - interval '5 minutes',
    case when status in ('verified', 'rejected', 'failed') then now() end
from unnest(array['verified', 'rejected', 'failed', 'processing', 'uploaded']) with ordinality as s (status, n);
insert into mileage_data (id, upload_id, verification_status, final_mileage, rejection_reason)
select id, id, v.verdict::mileage_data_verification_status, v.mileage, v.reason
from odometer_uploads join (values
    ('verified', 'approved', 123456.0, null),
    ('rejected', 'rejected', null, 'rollback: 11 is below 12'),
    ('failed', 'rejected', null, 'processing_failed: the photo is gone'),
    ('processing', 'manual_review', null, null)
) as v (status, verdict, mileage, reason) on v.status = upload_status::text;
insert into upload_verifications (id, upload_id, confidence_score, blur_detected)
select id, id, 0.93, true from odometer_uploads;
insert into ai_performance_metrics (id, service_name, metric_type, metric_value, metric_unit, sample_size, time_period,
    period_start, period_end, created_at, exact_value)
select gen_random_uuid(), 'Milestream Embedded', metric::ai_performance_metrics_metric_type, value, unit, 5, 'hour',
    now() - interval '30 minutes', now() + interval '30 minutes', now(), value * 5
from (values ('availability', 0.8, 'ratio'), ('speed', 640, 'ms'), ('cost', 0, 'usd_per_request')) as m (metric, value, unit);
insert into rewards (id, user_id, upload_id, base_amount, bonus_amount, granted_amount, status, distributed_at)
select id, user_id, id, 3.33, 0, 3.33, 'distributed', now() from odometer_uploads where upload_status = 'verified';
insert into blockchain_transactions (id, tx_hash, status, block_timestamp, transaction_fee, created_at)
select id, '0x' || id, case when upload_status = 'verified' then 'confirmed' else 'pending' end::blockchain_transactions_status,
    case when upload_status = 'verified' then now() end, 1.5, now() - interval '1 minute'
from odometer_uploads where upload_status in ('verified', 'uploaded');
";

fn dashboards() -> Vec<Dashboard> {
    let folder = std::fs::read_dir(repository().join("grafana/dashboards")).unwrap();
    folder
        .map(|file| Dashboard::parse(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_gets_a_response_from_prometheus_and_postgres() {
    let stack = tokio::task::spawn_blocking(|| {
        let parts = [Part::Postgres, Part::Prometheus];
        Stack::start_own(&repository().join(".local"), &parts, &|line| eprintln!("{line}")).unwrap()
    })
    .await
    .unwrap();
    let (address, exporter) = exporter::serve().await;
    stack.scrape("exporter", "exporter-1", address).unwrap();
    let reader = reader_of_tables(stack.database_url()).await;
    let prometheus = Prometheus::at(stack.prometheus_url());
    prometheus.wait_for_scrapes().await;

    let mut complaints = Vec::new();
    let (mut promql, mut sql) = (0, 0);
    let dashboards = dashboards();
    for dashboard in &dashboards {
        let chosen: Vec<&str> =
            dashboard.templating.list.iter().map(|variable| variable.name.as_str()).collect();
        for (panel, target, query) in dashboard.queries() {
            let response = match query {
                Query::Promql(text) => {
                    promql += 1;
                    prometheus.numbers(&fill_promql(text, &chosen).unwrap()).await
                }
                Query::Sql(text) => {
                    sql += 1;
                    rows(&reader, &fill_sql(text).unwrap()).await
                }
            };
            match response {
                Err(error) => complaints.push(format!("{} {}: {error}", panel.title, target.ref_id)),
                Ok(0) => complaints.push(format!("{} {}: no data", panel.title, target.ref_id)),
                Ok(_) => {}
            }
        }
    }
    exporter.abort();
    reader.close().await;
    tokio::task::spawn_blocking(move || stack.stop()).await.unwrap();
    assert_eq!(complaints, Vec::<String>::new());
    assert!(promql >= 10 && sql >= 5, "{promql} and {sql} queries: the dashboards are not read");
}

/// Tables with rows, and a pool that logs in as Grafana does: with what `grafana/access.sql` grants.
async fn reader_of_tables(url: &str) -> PgPool {
    let owner = PgPoolOptions::new().max_connections(1).connect(url).await.unwrap();
    migrations::MIGRATIONS.run(&owner).await.unwrap();
    sqlx::raw_sql(ROWS).execute(&owner).await.unwrap();
    let access = std::fs::read_to_string(repository().join("grafana/access.sql")).unwrap();
    let access = access.replace(":'password'", "'of-this-test'");
    // Twice: a second start of the monitoring must not fail.
    for _ in 0..2 {
        sqlx::raw_sql(AssertSqlSafe(access.clone())).execute(&owner).await.unwrap();
    }
    let login: PgConnectOptions = url.parse().unwrap();
    let reader = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(login.username("grafana").password("of-this-test"))
        .await
        .unwrap();
    let secret = sqlx::query("select key from user_keys").fetch_all(&reader).await.unwrap_err();
    assert!(secret.to_string().contains("permission denied"), "{secret}");
    owner.close().await;
    reader
}

async fn rows(pool: &PgPool, sql: &str) -> Result<usize, String> {
    let found = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(pool).await;
    found.map(|rows| rows.len()).map_err(|error| error.to_string())
}

struct Prometheus {
    query: Url,
    client: reqwest::Client,
}

impl Prometheus {
    fn at(url: &str) -> Self {
        runtime::registry::install_tls();
        Self { query: format!("{url}/api/v1/query").parse().unwrap(), client: reqwest::Client::new() }
    }

    async fn ask(&self, promql: &str) -> Result<Vec<f64>, String> {
        let mut url = self.query.clone();
        url.query_pairs_mut().append_pair("query", promql);
        let response = self.client.get(url).send().await.map_err(|error| error.to_string())?;
        let response = response.json::<Value>().await.map_err(|error| error.to_string())?;
        if response["status"] != "success" {
            return Err(format!("{}: {}", response["errorType"], response["error"]));
        }
        let series = response["data"]["result"].as_array().cloned().unwrap_or_default();
        Ok(series.iter().filter_map(|one| one["value"][1].as_str()?.parse().ok()).collect())
    }

    /// How many series of the response have a number.
    async fn numbers(&self, promql: &str) -> Result<usize, String> {
        Ok(self.ask(promql).await?.iter().filter(|value| value.is_finite()).count())
    }

    async fn wait_for_scrapes(&self) {
        let until = Instant::now() + LIMIT;
        let scrapes = r#"sum_over_time(up{job="exporter"}[5m])"#;
        while !self.ask(scrapes).await.is_ok_and(|found| found.iter().any(|count| *count >= SCRAPES)) {
            assert!(Instant::now() < until, "the exporter was not scraped within {LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
