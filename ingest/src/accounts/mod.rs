//! What operators do to accounts by command: tokens and wallets.

pub mod token;
pub mod wallets;
