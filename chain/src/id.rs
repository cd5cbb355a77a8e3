//! Addresses and 32-byte ids as types of their own, so that a block id cannot be passed where a transaction id is meant.
//! All print as `0x` and lower-case hex, the form that a Thor node responds with, and read and write JSON the same way.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::keccak256;

/// Why a text is no address or id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text does not start with `0x`.
    #[error("an address or id starts with 0x")]
    NoPrefix,
    /// The text has the wrong number of hex digits.
    #[error("expected {expected} hex digits after 0x, found {found}")]
    Length {
        /// Hex digits that the type needs.
        expected: usize,
        /// Bytes found after `0x`.
        found: usize,
    },
    /// A character is no hex digit.
    #[error("a character is no hex digit")]
    Digit,
    /// Upper and lower case do not agree with the EIP-55 checksum; only [`Address::parse_checked`] looks.
    #[error("upper and lower case do not agree with the address's checksum: a character may be mistyped")]
    Checksum,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or(IdError::NoPrefix)?;
    if digits.len() != 2 * N {
        return Err(IdError::Length { expected: 2 * N, found: digits.len() });
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| IdError::Digit)?;
    Ok(bytes)
}

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The bytes, most significant first.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// True when every byte is zero.
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.0 == [0; $len]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// `0x` and hex digits of any case: the case carries no meaning here.
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fixed_bytes! {
    /// An account or contract: the last 20 bytes of keccak-256 of the public key, as on Ethereum.
    Address, 20
}
fixed_bytes! {
    /// A block: its first four bytes are its number, the rest is of its header's hash.
    BlockId, 32
}
fixed_bytes! {
    /// A transaction: blake2b-256 of its signing hash and its origin; known before it is signed.
    TxId, 32
}
fixed_bytes! {
    /// A `VeBetterDAO` app: keccak-256 of the name it was submitted with.
    AppId, 32
}
fixed_bytes! {
    /// Any other 32-byte word: a signing hash, an event topic, a storage slot.
    Word, 32
}

impl Address {
    /// The address with the upper-case letters of its EIP-55 checksum, for people to read and compare.
    #[must_use]
    pub fn checksummed(&self) -> String {
        let lower = hex::encode(self.0);
        let hash = keccak256(lower.as_bytes());
        let digits = lower.char_indices().map(|(index, digit)| {
            // EIP-55: a letter is upper case where the hash's hex digit at the same place is 8 or more.
            let nibble = hash[index / 2] >> (if index % 2 == 0 { 4 } else { 0 }) & 0x0f;
            if nibble >= 8 { digit.to_ascii_uppercase() } else { digit }
        });
        format!("0x{}", digits.collect::<String>())
    }

    /// Reads an address that a person typed: of one case it is taken as it is, of mixed case its checksum must hold.
    ///
    /// # Errors
    /// [`IdError::Checksum`] when the case is mixed and wrong; the other kinds as for `parse`.
    pub fn parse_checked(text: &str) -> Result<Self, IdError> {
        let address: Self = text.parse()?;
        let digits = &text[2..];
        let mixed = digits.contains(|c: char| c.is_ascii_uppercase())
            && digits.contains(|c: char| c.is_ascii_lowercase());
        if mixed && digits != &address.checksummed()[2..] {
            return Err(IdError::Checksum);
        }
        Ok(address)
    }
}

impl BlockId {
    /// The block's number, 0 for the genesis block.
    #[must_use]
    pub fn number(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// The chain tag of the network whose genesis block this is: its last byte (mainnet 0x4a, testnet 0x27, solo 0x58).
    #[must_use]
    pub fn chain_tag(&self) -> u8 {
        self.0[31]
    }
}

impl From<[u8; 32]> for Word {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHECKSUMMED: &str = "0xd989829d88B0eD1B06eDF5C50174eCfA64F14A64";

    #[test]
    fn an_address_prints_in_lower_case_and_reads_any_case() {
        let address: Address = CHECKSUMMED.parse().unwrap();
        assert_eq!(address.to_string(), CHECKSUMMED.to_lowercase());
        assert_eq!(CHECKSUMMED.to_uppercase().parse::<Address>().unwrap(), address);
        assert_eq!(format!("{address:?}"), CHECKSUMMED.to_lowercase());
    }

    #[test]
    fn the_checksum_is_that_of_the_public_vector() {
        assert_eq!(CHECKSUMMED.parse::<Address>().unwrap().checksummed(), CHECKSUMMED);
        // EIP-55's own first vector.
        let vector = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        assert_eq!(vector.parse::<Address>().unwrap().checksummed(), vector);
    }

    #[test]
    fn a_mistyped_mixed_case_address_is_refused_by_the_checked_parse_alone() {
        let wrong = CHECKSUMMED.replace('B', "b");
        assert!(wrong.parse::<Address>().is_ok());
        assert_eq!(Address::parse_checked(&wrong), Err(IdError::Checksum));
        assert!(Address::parse_checked(CHECKSUMMED).is_ok());
        assert!(Address::parse_checked(&CHECKSUMMED.to_lowercase()).is_ok());
        assert!(Address::parse_checked(&CHECKSUMMED.to_uppercase()).is_ok());
    }

    #[test]
    fn texts_that_are_no_address_are_refused_with_the_reason() {
        let cases = [
            ("d989829d88b0ed1b06edf5c50174ecfa64f14a64", IdError::NoPrefix),
            ("", IdError::NoPrefix),
            ("0x", IdError::Length { expected: 40, found: 0 }),
            ("0xd9", IdError::Length { expected: 40, found: 2 }),
            ("0xg989829d88b0ed1b06edf5c50174ecfa64f14a64", IdError::Digit),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
        // 40 bytes, but not 40 ASCII characters.
        assert_eq!(format!("0x{}0", "€".repeat(13)).parse::<Address>(), Err(IdError::Digit));
    }

    #[test]
    fn a_block_id_carries_its_number_and_a_genesis_id_the_chain_tag() {
        let solo =
            "0x00000000bb55405b00000000000000000000000000000000000000000000e558".parse::<BlockId>().unwrap();
        assert_eq!((solo.number(), solo.chain_tag()), (0, 0x58));
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&23_414_400_u32.to_be_bytes());
        assert_eq!(BlockId(bytes).number(), 23_414_400);
    }

    proptest! {
        #[test]
        fn an_address_survives_text_json_and_its_checksum(bytes: [u8; 20]) {
            let address = Address(bytes);
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            prop_assert_eq!(Address::parse_checked(&address.checksummed()), Ok(address));
            let json = serde_json::to_string(&address).unwrap();
            prop_assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<TxId>();
            let _ = Address::parse_checked(&text);
            let _ = format!("0x{text}").parse::<Address>();
        }
    }
}
