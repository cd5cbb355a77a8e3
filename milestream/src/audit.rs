//! `system_audit_logs`: each change by an operator, written in the change's own transaction.

use anyhow::Result;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// `module`.
    pub module: &'static str,
    /// `action`.
    pub action: &'static str,
    /// `severity`: `info`, `warning`, `error` or `critical`.
    pub severity: &'static str,
}

/// Who ran the command, as far as the machine knows.
fn principal() -> Option<String> {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
}

/// Writes what was done to `target`, with the values before and after; no secret is among them.
pub async fn audit(
    tx: &mut PgConnection,
    what: Action,
    target: &str,
    before: Option<Value>,
    after: Value,
) -> Result<()> {
    let request = Uuid::now_v7();
    let details = json!({
        "target": target, "before": before, "after": after, "request_id": request, "via": "cli", "principal": principal(),
    });
    sqlx::query(
        "insert into system_audit_logs (id, action, module, action_details, user_agent, timestamp, severity)
         values ($1, $2, $3, $4, $5, now(), $6::system_audit_logs_severity)",
    )
    .bind(schemas::ids::natural(&format!("{request}/{}/0", what.action)))
    .bind(what.action)
    .bind(what.module)
    .bind(details)
    .bind(concat!("milestream/", env!("CARGO_PKG_VERSION")))
    .bind(what.severity)
    .execute(tx)
    .await?;
    Ok(())
}
