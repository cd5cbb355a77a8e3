//! What the administrator of a local chain's passport says of accounts.

use super::actions::{call, to};
use super::interface::PassportLists;
use crate::id::Address;
use crate::tx::Clause;

/// The clause that puts an account on the passport's list of known cheaters, or takes it off.
#[must_use]
pub fn blacklist(passport: Address, who: Address, listed: bool) -> Clause {
    let user = to(who);
    if listed {
        call(passport, &PassportLists::blacklistCall { user })
    } else {
        call(passport, &PassportLists::removeFromBlacklistCall { user })
    }
}

/// The clause that reports an account to the passport as a bot, once.
#[must_use]
pub fn report(passport: Address, who: Address) -> Clause {
    call(passport, &PassportLists::signalUserCall { user: to(who) })
}
