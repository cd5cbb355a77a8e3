//! Wallets that are contracts (EIP-1271): a smart account has no key of its own and says itself whose signatures it takes for its own.
//! It is asked by a call at a node that is tried out and not sent. Only where a signature is not that of a key is anybody asked: whoever
//! signs with a key waits for no node.

use chain::node::{Node, Revision, Simulation};
use chain::{Address, Clause};
use tokio::sync::Semaphore;

use crate::http::problem::{ApiError, BUSY, NODE_UNAVAILABLE};

/// `isValidSignature(bytes32,bytes)`: what is called, and what it returns where the signature is the wallet's.
const SELECTOR: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];
/// Gas of a call: signatures of passkeys cost less than 1 million where no precompile checks them, and a node has such a call done in some
/// milliseconds.
const GAS: u64 = 5_000_000;
/// Calls at once. A node has hundreds a second of them done; one that hangs must not have requests pile up behind it.
const AT_ONCE: usize = 16;
/// Bytes of a word.
const WORD: usize = 32;

/// The node that is asked.
#[derive(Debug)]
pub(crate) struct ContractWallets {
    node: Node,
    places: Semaphore,
}

impl ContractWallets {
    /// Asks this node, whose limits bound each call.
    pub(crate) fn new(node: Node) -> Self {
        Self { node, places: Semaphore::new(AT_ONCE) }
    }

    /// Whether the contract at an address takes a signature for its own; false where there is no contract.
    ///
    /// # Errors
    /// [`NODE_UNAVAILABLE`] where the node does not say, and [`BUSY`].
    pub(crate) async fn accept(
        &self,
        wallet: Address,
        hash: &[u8; WORD],
        signature: &[u8],
    ) -> Result<bool, ApiError> {
        let _place = self.places.try_acquire().map_err(|_| BUSY.error())?;
        let clauses = [Clause::call(wallet, call_data(hash, signature))];
        let simulation = Simulation {
            clauses: &clauses,
            caller: Address::default(),
            gas_payer: None,
            gas: Some(GAS),
            at: Revision::Best,
        };
        let outcomes =
            self.node.simulate(&simulation).await.map_err(|error| NODE_UNAVAILABLE.caused_by(error))?;
        // An address without code returns nothing, and a precompiled contract what it was given.
        Ok(outcomes.last().is_some_and(|outcome| !outcome.reverted && outcome.data == valid()))
    }
}

/// The selector as a word: padded to the right.
fn valid() -> [u8; WORD] {
    std::array::from_fn(|at| SELECTOR.get(at).copied().unwrap_or(0))
}

/// The call, as the ABI encodes it: the hash, the place of the bytes behind two words, their length, and the bytes padded to whole words.
fn call_data(hash: &[u8; WORD], signature: &[u8]) -> Vec<u8> {
    let word = |number: usize| {
        let mut word = [0; WORD];
        word[WORD - size_of::<usize>()..].copy_from_slice(&number.to_be_bytes());
        word
    };
    let padding = vec![0; signature.len().next_multiple_of(WORD) - signature.len()];
    [&SELECTOR[..], hash, &word(2 * WORD), &word(signature.len()), signature, &padding].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_the_one_that_the_abi_describes() {
        let data = call_data(&[0xaa; 32], &[0xbb; 65]);
        assert_eq!(data.len(), 4 + 3 * 32 + 3 * 32);
        assert_eq!(hex::encode(&data[..4]), "1626ba7e");
        assert_eq!((data[4..36] == [0xaa; 32], data[4 + 63], data[4 + 95]), (true, 0x40, 65));
        assert!(data[100..165].iter().all(|byte| *byte == 0xbb) && data[165..].iter().all(|byte| *byte == 0));
        assert_eq!(call_data(&[0; 32], &[]).len(), 4 + 3 * 32);
    }
}
