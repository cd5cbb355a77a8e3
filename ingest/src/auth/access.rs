//! Who may call a route. Each row of the table of routes says so, and dispatch asks here before the handler is called: a handler cannot
//! forget it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::Admission;
use super::keys::Role;
use crate::http::operation::Operation;
use crate::http::problem::{
    ACCOUNT_LOCKED, ApiError, RATE_LIMITED, ROLE_MISSING, SCOPE_MISSING, TOKEN_EXPIRED, TOKEN_INVALID,
    TOKEN_MISSING,
};
use crate::http::request::{Provide, Request};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody.
    Public,
    /// Who has a token with one of these roles, of an account in order, within the rates.
    Roles(&'static [Role]),
    /// The watcher of the chain, by its signature: the handler checks it, as it covers the body.
    Watcher,
}

/// Whoever has an account, and services that act for one: photos, and what becomes of them.
pub(crate) const ACCOUNT: Access =
    Access::Roles(&[Role::Driver, Role::Reviewer, Role::Operator, Role::Service]);
/// Whoever has an account, in person: what moves money or says who somebody is.
pub(crate) const PERSON: Access = Access::Roles(&[Role::Driver, Role::Reviewer, Role::Operator]);
/// Who decides what is in doubt.
pub(crate) const REVIEWER: Access = Access::Roles(&[Role::Reviewer, Role::Operator]);

impl Access {
    /// Lets a request pass, with its caller, or refuses it.
    pub(crate) async fn admit<S: Provide<Arc<Admission>> + Sync>(
        self,
        dependencies: &S,
        request: &mut Request,
    ) -> Result<(), ApiError> {
        let Self::Roles(roles) = self else { return Ok(()) };
        let caller = dependencies.provide().admit(&request.headers, request.peer).await?;
        if !roles.contains(&caller.role) {
            return Err(ROLE_MISSING.error());
        }
        request.extensions.insert(caller);
        Ok(())
    }

    fn allows(self, role: Role) -> bool {
        matches!(self, Self::Roles(roles) if roles.contains(&role))
    }

    /// What the OpenAPI document says of it.
    pub(crate) fn describe(self, operation: &mut Operation) {
        operation.access(self.shown());
        if matches!(self, Self::Roles(_)) {
            operation.secured();
            if self.allows(Role::Service) {
                operation.problems(&[SCOPE_MISSING]);
            }
            operation.problems(&[
                TOKEN_MISSING,
                TOKEN_INVALID,
                TOKEN_EXPIRED,
                ACCOUNT_LOCKED,
                ROLE_MISSING,
                RATE_LIMITED,
            ]);
        }
    }

    fn shown(self) -> Value {
        match self {
            Self::Public => json!(["public"]),
            Self::Roles(roles) => json!(roles),
            Self::Watcher => json!(["watcher"]),
        }
    }
}
