//! Responses to queries, from the materialized tables.

pub(crate) mod appeal;
mod heic;
pub(crate) mod live;
pub(crate) mod page;
pub(crate) mod payout;
pub(crate) mod photo;
pub(crate) mod rewards;
pub(crate) mod status;
pub(crate) mod uploads;
