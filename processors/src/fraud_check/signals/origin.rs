//! Who else sends photos from where this one came from, as the gateway has counted it. A phone is shared by a family and an address by a
//! mobile network's drivers, so that both only ask a person; and whoever takes another phone and another network is not seen here.

use schemas::events::Verdict;
use schemas::reason::Reason;

use super::{Signal, Weight};
use crate::fraud_check::facts::Facts;

pub(super) fn accounts_of_device(facts: &Facts<'_>) -> Option<Signal> {
    let accounts = facts.event.stamp.origin?.accounts_of_device?;
    let most = facts.rules.accounts_of_device;
    let signal = Signal::new("accounts_of_device", Weight::Doubts, accounts, most);
    Some(signal.when(accounts > most, Verdict::Review, Reason::SharedDevice, || {
        format!("{accounts} accounts sent photos from this device in 30 days, at most {most} are usual")
    }))
}

/// Speaks of accounts of the first week alone: an address has thousands of drivers, but not new ones by the dozen in a day.
pub(super) fn young_accounts_of_address(facts: &Facts<'_>) -> Option<Signal> {
    let accounts = facts.event.stamp.origin?.young_accounts_of_address?;
    let most = facts.rules.young_accounts_of_address;
    let signal = Signal::new("young_accounts_of_address", Weight::Doubts, accounts, most);
    Some(signal.when(accounts > most, Verdict::Review, Reason::SharedAddress, || {
        format!(
            "{accounts} accounts of their first week sent photos from this network in a day, at most {most} are usual"
        )
    }))
}
