//! The two hash functions of VeChain: blake2b-256 for transactions and certificates, keccak-256 for addresses and the ABI.

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};

/// blake2b with 32 bytes of output over the concatenation of `pieces` (Thor `thor.Blake2b`).
#[must_use]
pub fn blake2b256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2b::<U32>::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize().into()
}

/// keccak-256, the hash of the EVM.
#[must_use]
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    alloy_primitives::keccak256(bytes).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_input_hashes_to_the_published_digests() {
        // RFC 7693 implementations and the Ethereum yellow paper agree on these two.
        assert_eq!(
            hex::encode(blake2b256(&[])),
            "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
        );
        assert_eq!(
            hex::encode(keccak256(b"")),
            "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
        );
    }

    #[test]
    fn hashing_in_pieces_equals_hashing_the_whole() {
        assert_eq!(blake2b256(&[b"ab", b"", b"c"]), blake2b256(&[b"abc"]));
    }
}
