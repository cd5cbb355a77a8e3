//! Who asks and may ask: tokens and their keys, accounts in order, rates, and who may call which route.

pub(crate) mod access;
pub(crate) mod address;
pub(crate) mod admission;
pub mod api_keys;
pub mod keys;
pub(crate) mod rate;
pub(crate) mod rates;
pub(crate) mod standing;
