//! How many statements a request costs Postgres: each is a round trip, and most of what a request costs the gateway.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::signing_in::{bench, challenge, login, signed_in, typed, wallet};
use crate::support::{Bench, Form, jpeg};

/// What every gateway looks at each second.
const BY_ITSELF: &str = "select maintenance_mode";

/// The statements of this thread, and with it of a test's whole runtime, as sqlx tells of them: of a transaction its end, not its begin.
#[derive(Clone, Debug, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl Statements {
    /// Those since the last call.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// As many as are expected, or those that there are instead.
    async fn assert_count(&self, expected: usize, what: &str) {
        // A mark is written after the response.
        let all = async {
            while self.0.lock().unwrap().len() < expected {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), all).await;
        let seen = self.take();
        assert!(
            in_time.is_ok() && seen.len() == expected,
            "{what} costs {} statements: {seen:#?}",
            seen.len()
        );
    }
}

impl Subscriber for Statements {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn event(&self, event: &Event<'_>) {
        struct Summary(String);
        impl Visit for Summary {
            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "summary" {
                    value.clone_into(&mut self.0);
                }
            }

            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut summary = Summary(String::new());
        event.record(&mut summary);
        if !summary.0.starts_with(BY_ITSELF) {
            self.0.lock().unwrap().push(summary.0);
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

/// Connections that stand: each that is new asks for the types that it does not know.
async fn warm(bench: &Bench) {
    let connections: Vec<_> = futures::future::join_all((0..12).map(|_| bench.pool.acquire())).await;
    drop(connections);
}

#[tokio::test]
async fn a_challenge_costs_no_statement_and_a_login_two() {
    let (bench, wallet) = (bench().await, wallet());
    signed_in(&bench, &wallet).await;
    warm(&bench).await;
    let statements = Statements::default();
    let _guard = tracing::subscriber::set_default(statements.clone());
    let open = challenge(&bench, &wallet).await;
    statements.assert_count(0, "a challenge").await;
    assert_eq!(login(&bench, &typed(&open, &wallet)).await.status, 200);
    // What is known of wallet, account and challenge; the login.
    statements.assert_count(2, "a login").await;
}

#[tokio::test]
async fn an_upload_of_a_known_driver_costs_four_statements() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(1))).await.status, 202);
    warm(&bench).await;
    let statements = Statements::default();
    let _guard = tracing::subscriber::set_default(statements.clone());
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(2))).await.status, 202);
    // Is the session in order, what is known of the photo, its reservation, the mark that it is published.
    statements.assert_count(4, "an upload").await;
}
