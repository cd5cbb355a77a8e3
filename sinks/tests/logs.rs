//! Logs as a node gives them, encoded by the contract ABI (Solidity, "Contract ABI Specification").

use chain::abi::topic;
use schemas::events::ChainLog;

/// Reward pool.
pub const POOL: &str = "0x2222222222222222222222222222222222222222";
/// Signs and distributes.
pub const SIGNER: &str = "0x1111111111111111111111111111111111111111";
/// Our app.
pub const APP: &str = "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// An address as a topic: padded on the left to 32 bytes.
pub fn padded(address: &str) -> String {
    format!("0x{:0>64}", address.trim_start_matches("0x"))
}

/// Data of an amount and a text: the amount, the text's offset of two words, its length, its bytes padded on the right.
pub fn amount_and_text(amount: u128, text: &str) -> String {
    let bytes = hex::encode(text);
    let width = bytes.len().div_ceil(64) * 64;
    format!("0x{amount:064x}{:064x}{:064x}{bytes:0<width$}", 64, text.len())
}

/// The pool's log of a reward paid for our app.
pub fn distributed(place: (i32, i32), receiver: &str, amount: u128, proof: &str) -> ChainLog {
    ChainLog {
        clause_index: place.0,
        log_index: place.1,
        address: POOL.into(),
        topics: vec![topic::REWARD_DISTRIBUTED.to_string(), APP.into(), padded(receiver), padded(SIGNER)],
        data: amount_and_text(amount, proof),
        balance_after_wei: None,
    }
}
