//! Accounts: their tokens, sessions and wallets.

pub(crate) mod session;
pub mod token;
pub mod wallets;
