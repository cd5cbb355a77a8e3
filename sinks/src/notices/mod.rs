//! The `notices` sink: what happens to uploads, rewards and accounts is told to people, as they prefer it. `sink` writes rows of
//! `notice_deliveries`, and [`Deliverer`] sends them: at least once, each under an id by which a receiver knows one that comes twice.

mod codes;
mod config;
mod deliver;
mod email;
mod event;
mod offers;
mod reach;
mod service;
mod sink;
mod webhook;
pub use {
    config::{NoticesConfig, Smtp},
    deliver::{Deliverer, NoticeMetrics},
    email::SmtpError,
    event::NoticeEvent,
    service::is_retryable,
    sink::NoticesSink,
};

/// What happened longer ago is told to nobody: a group that reads its topics anew writes to no one about last year.
const OLDEST: chrono::TimeDelta = chrono::TimeDelta::days(1);
