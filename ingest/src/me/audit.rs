//! `system_audit_logs`: what people change of their own accounts, in the change's transaction.

use schemas::ids::{Micros, natural};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::admission::Caller;
use crate::http::request_id;

/// A change.
pub(crate) struct Change<'a> {
    pub(crate) module: &'static str,
    pub(crate) action: &'static str,
    /// The row that changed.
    pub(crate) target: Uuid,
    /// Nothing that is kept in one place only, such as an e-mail address, is among them.
    pub(crate) before: Value,
    pub(crate) after: Value,
    pub(crate) agent: Option<&'a str>,
}

impl Change<'_> {
    /// Writes it down.
    pub(crate) async fn record(
        &self,
        tx: &mut PgConnection,
        caller: &Caller,
        now: Micros,
    ) -> Result<(), sqlx::Error> {
        let request = request_id::current();
        let details = json!({
            "target": self.target, "before": self.before, "after": self.after, "request_id": request, "via": "api",
            "principal": caller.user,
        });
        sqlx::query(
            "insert into system_audit_logs (id, user_id, action, module, action_details, ip_address, user_agent, timestamp,
               severity) values ($1, $2, $3, $4, $5, $6, $7, $8, 'info')",
        )
        .bind(natural(&format!("{request}/{}/{}", self.action, self.target)))
        .bind(caller.user.0)
        .bind(self.action)
        .bind(self.module)
        .bind(details)
        .bind(caller.address.to_string())
        .bind(self.agent)
        .bind(now.to_utc())
        .execute(tx)
        .await?;
        Ok(())
    }
}
