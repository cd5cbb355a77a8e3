//! How many cases the properties of decisions and money are tried on: as many as take seconds unoptimised. `./dev test` sets
//! `PROPTEST_CASES` to try [`histories`](crate::histories) 200,000 times, and `./dev test deep` to try each a million times, optimised.

use proptest::prelude::ProptestConfig;

/// So many cases, or as many as `PROPTEST_CASES` says.
pub(crate) fn tried(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    exactly(asked.unwrap_or(cases))
}

/// Exactly so many.
pub(crate) fn exactly(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}
