//! Why a contract refused a call, as a type: its words are read here and nowhere else.

use std::fmt;

use alloy_sol_types::{Panic, Revert, SolError as _, SolInterface as _};

use super::interface::Token::TokenErrors;
use crate::id::Address;

/// What a refusal means to somebody who pays rewards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The app's rewards, or the token, are stopped.
    Paused,
    /// The caller may not pay the app's rewards.
    NotDistributor,
    /// The app is not known to the registry of apps.
    UnknownApp,
    /// The app's purse, or the pool, holds less than what is paid.
    NoFunds,
    /// The receiver is no account that can hold the token.
    InvalidReceiver,
    /// An impact key that the pool does not allow.
    InvalidImpactKey,
    /// Anything else.
    Other,
}

/// Why a contract refused a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it means.
    pub cause: Cause,
    text: String,
}

impl Refusal {
    /// From the bytes that the call returned: the text of a failed `require`, a panic's meaning, or one of B3TR's custom errors.
    /// `vm_error` is the EVM's own word, for any others.
    #[must_use]
    pub fn decode(data: &[u8], vm_error: &str) -> Self {
        if let Ok(error) = TokenErrors::abi_decode(data) {
            return Self::of_token(&error);
        }
        if let Ok(Revert { reason }) = Revert::abi_decode(data) {
            return Self { cause: required(&reason), text: reason };
        }
        let text = Panic::abi_decode(data).map_or_else(|_| vm_error.to_owned(), |panic| panic.to_string());
        Self { cause: Cause::Other, text }
    }

    fn of_token(error: &TokenErrors) -> Self {
        let (cause, text) = match error {
            TokenErrors::EnforcedPause(_) => (Cause::Paused, "EnforcedPause()".to_owned()),
            TokenErrors::ERC20InvalidReceiver(e) => {
                (Cause::InvalidReceiver, format!("ERC20InvalidReceiver({})", Address(e.receiver.into())))
            }
            // The pool itself holds less than its books say.
            TokenErrors::ERC20InsufficientBalance(e) => {
                let sender = Address(e.sender.into());
                (Cause::NoFunds, format!("ERC20InsufficientBalance({sender}, {}, {})", e.balance, e.needed))
            }
            TokenErrors::ERC20InsufficientAllowance(e) => {
                let spender = Address(e.spender.into());
                let text = format!("ERC20InsufficientAllowance({spender}, {}, {})", e.allowance, e.needed);
                (Cause::Other, text)
            }
        };
        Self { cause, text }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the text of a failed `require` means: those of `X2EarnRewardsPool` 4 to 8, which names no custom errors. Funds are missing in
/// several phrases ("app has insufficient available funds", "insufficient funds on contract", "not enough funds in the rewards pool").
fn required(text: &str) -> Cause {
    let contains = |words: &str| text.contains(words);
    if contains("distribution is paused") {
        Cause::Paused
    } else if contains("not a reward distributor") {
        Cause::NotDistributor
    } else if contains("app does not exist") {
        Cause::UnknownApp
    } else if contains("insufficient") || contains("not enough funds") {
        Cause::NoFunds
    } else if contains("Invalid impact key") {
        Cause::InvalidImpactKey
    } else {
        Cause::Other
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::interface::Token;
    use super::*;

    fn of_require(text: &str) -> Refusal {
        Refusal::decode(&Revert::from(text).abi_encode(), "execution reverted")
    }

    #[test]
    fn each_text_of_the_pool_has_its_cause_and_stays_readable() {
        for (text, cause) in [
            ("distribution is paused", Cause::Paused),
            ("not a reward distributor", Cause::NotDistributor),
            ("app does not exist", Cause::UnknownApp),
            ("app has insufficient available funds", Cause::NoFunds),
            ("insufficient funds on contract", Cause::NoFunds),
            ("not enough funds in the rewards pool", Cause::NoFunds),
            ("Invalid impact key", Cause::InvalidImpactKey),
            ("something new", Cause::Other),
        ] {
            let text = format!("X2EarnRewardsPool: {text}");
            let refusal = of_require(&text);
            assert_eq!((refusal.cause, refusal.to_string()), (cause, text));
        }
    }

    #[test]
    fn a_custom_error_of_the_token_is_read_with_its_arguments() {
        let account = alloy_primitives::Address::ZERO;
        let number = alloy_primitives::U256::from(7);
        let invalid = Token::ERC20InvalidReceiver { receiver: account }.abi_encode();
        let poor = Token::ERC20InsufficientBalance { sender: account, balance: number, needed: number };
        let (zero, read) = (Address::default(), |data: &[u8]| Refusal::decode(data, ""));
        assert_eq!(read(&invalid).cause, Cause::InvalidReceiver);
        assert_eq!(read(&invalid).to_string(), format!("ERC20InvalidReceiver({zero})"));
        assert_eq!(read(&Token::EnforcedPause {}.abi_encode()).cause, Cause::Paused);
        assert_eq!(read(&poor.abi_encode()).cause, Cause::NoFunds);
        assert_eq!(read(&poor.abi_encode()).to_string(), format!("ERC20InsufficientBalance({zero}, 7, 7)"));
    }

    #[test]
    fn a_call_that_returns_nothing_is_reported_in_the_evms_word() {
        let refusal = Refusal::decode(&[], "out of gas");
        assert_eq!((refusal.cause, refusal.to_string().as_str()), (Cause::Other, "out of gas"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Refusal::decode(&data, "");
        }
    }
}
