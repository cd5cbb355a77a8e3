//! How many statements a request costs Postgres: each is a round trip, and most of what a request costs the gateway.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Once;
use std::time::Duration;

use ingest::GatewayConfig;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::origins::{behind_a_proxy, grow_old};
use crate::signing_in::{bench_with, challenge, login, refresh, signed_in, typed, wallet};
use crate::support::{Bench, Form, jpeg};

/// What every gateway looks at each second.
const BY_ITSELF: &str = "select maintenance_mode";
/// The last statement of what a gateway looks for at its start and every few seconds: uploads that were left reserved.
const SWEPT: &str = "select count(*) from photo_hashes";
/// The mark that an upload is published, which follows its response.
const MARKED: &str = "with unhurried as materialized";

thread_local! {
    /// The statements of this thread, and with it of a test's whole runtime, while they are counted.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The statements of a test as sqlx tells of them: of a transaction its end, not its begin.
struct Statements;

impl Statements {
    /// Counts from now on.
    fn count() -> Self {
        static ONCE: Once = Once::new();
        // One for all threads: who listens on one alone misses what another has met first.
        ONCE.call_once(|| tracing::subscriber::set_global_default(Listener).unwrap());
        SEEN.set(Some(Vec::new()));
        Self
    }

    /// Waits for the end of a statement that begins so: [`SWEPT`] of the gateway that was started since, [`MARKED`] of an upload since.
    async fn until(&self, first_words: &str) {
        while !SEEN.with_borrow(|seen| seen.iter().flatten().any(|text| text.starts_with(first_words))) {
            tokio::task::yield_now().await;
        }
    }

    /// Counts anew.
    fn forget(&self) {
        SEEN.set(Some(Vec::new()));
    }

    /// As many as are expected, or those that there are instead; counts anew.
    async fn assert_count(&self, expected: usize, what: &str) {
        let count = || SEEN.with_borrow(|seen| seen.as_ref().map_or(0, Vec::len));
        // A mark is written after the response.
        let all = async {
            while count() < expected {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), all).await;
        let seen = SEEN.replace(Some(Vec::new())).unwrap_or_default();
        assert!(
            in_time.is_ok() && seen.len() == expected,
            "{what} costs {} statements: {seen:#?}",
            seen.len()
        );
    }
}

/// Hears of every statement.
struct Listener;

/// The statement's first words.
struct Summary(String);

impl Visit for Summary {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn event(&self, event: &Event<'_>) {
        let mut summary = Summary(String::new());
        event.record(&mut summary);
        if !summary.0.starts_with(BY_ITSELF) {
            SEEN.with_borrow_mut(|seen| seen.iter_mut().for_each(|seen| seen.push(summary.0.clone())));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Looks for what was left behind at its start alone.
fn swept_once(config: &mut GatewayConfig) {
    config.timeouts.sweep = Duration::from_secs(60 * 60);
}

#[tokio::test]
async fn a_challenge_costs_no_statement_a_login_two_and_a_refresh_three() {
    let statements = Statements::count();
    let (bench, wallet) = (bench_with(swept_once).await, wallet());
    statements.until(SWEPT).await;
    signed_in(&bench, &wallet).await;
    statements.forget();
    let open = challenge(&bench, &wallet).await;
    statements.assert_count(0, "a challenge").await;
    let tokens = login(&bench, &typed(&open, &wallet)).await.json();
    // What is known of wallet, account and challenge; the login.
    statements.assert_count(2, "a login").await;
    assert_eq!(refresh(&bench, &tokens).await.status, 200);
    // Whether its network has to wait, whose token it is, and the next tokens.
    statements.assert_count(3, "a refresh").await;
}

#[tokio::test]
async fn an_upload_of_a_known_driver_costs_four_statements() {
    let statements = Statements::count();
    let bench = Bench::start_with(swept_once).await;
    statements.until(SWEPT).await;
    let (_, token) = bench.driver().await;
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(1))).await.status, 202);
    statements.until(MARKED).await;
    statements.forget();
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(2))).await.status, 202);
    // Is the session in order, what is known of the photo, its reservation, the mark that it is published.
    statements.assert_count(4, "an upload").await;
}

#[tokio::test]
async fn counting_where_an_upload_comes_from_costs_one_statement_and_none_of_an_old_account_without_a_device()
{
    let statements = Statements::count();
    let bench = Bench::start_with(|config| {
        swept_once(config);
        behind_a_proxy(config);
    })
    .await;
    statements.until(SWEPT).await;
    let (user, token) = bench.driver().await;
    let address = "x-forwarded-for: 203.0.113.9\r\n";
    let both = format!("{address}x-device-id: a-phone\r\n");
    let post = async |seed: u32, headers: &str| {
        assert_eq!(bench.post_with(&token, &Form::photo(&jpeg(seed)), headers).await.status, 202);
    };
    post(1, address).await;
    statements.until(MARKED).await;
    statements.forget();
    post(2, &both).await;
    statements.assert_count(5, "an upload of a young account and a device").await;
    grow_old(&bench, user).await;
    statements.forget();
    post(3, address).await;
    statements.assert_count(4, "an upload of an old account").await;
}

#[tokio::test]
async fn connections_that_are_cut_cost_nobody_an_upload() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    for n in 1..5 {
        assert_eq!(bench.post(&token, &Form::photo(&jpeg(n))).await.status, 202, "photo {n}");
        let cut = sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = current_setting('application_name') and pid <> pg_backend_pid()",
        );
        assert!(cut.execute(&bench.pool).await.unwrap().rows_affected() > 0);
    }
    // One whose mark was cut goes out again, by the same bytes.
    let uploads: BTreeSet<_> = bench.kafka.events().iter().map(|event| event.header.upload_id).collect();
    assert_eq!(uploads.len(), 4);
}
