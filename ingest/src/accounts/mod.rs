//! Accounts: their tokens, sessions, wallets, which of them is paid to, preferences, and how far they are verified.

pub(crate) mod level;
pub(crate) mod preferences;
pub mod primary;
pub(crate) mod session;
pub mod token;
pub mod users;
pub mod wallets;
