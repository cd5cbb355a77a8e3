//! Who asks: tokens and their keys, accounts in order, rates.

pub(crate) mod address;
pub(crate) mod admission;
pub mod keys;
pub(crate) mod rate;
pub(crate) mod standing;
