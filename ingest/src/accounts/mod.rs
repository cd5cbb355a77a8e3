//! Accounts: their tokens, sessions, wallets and preferences.

pub(crate) mod preferences;
pub(crate) mod session;
pub mod token;
pub mod users;
pub mod wallets;
