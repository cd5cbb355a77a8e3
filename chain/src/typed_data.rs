//! Typed structured data (EIP-712), as far as signing in needs it: one flat structure of texts and addresses.

use serde_json::{Map, Value, json};

use crate::hash::keccak256;
use crate::id::Address;

/// A member's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// `string`.
    Text(String),
    /// `address`.
    Address(Address),
}

impl Member {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Address(_) => "address",
        }
    }

    /// A text is hashed, an address fills a word from the right.
    fn word(&self) -> [u8; 32] {
        match self {
            Self::Text(text) => keccak256(text.as_bytes()),
            Self::Address(address) => {
                let mut word = [0; 32];
                word[12..].copy_from_slice(address.as_bytes());
                word
            }
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Address(address) => json!(address),
        }
    }
}

/// A structure to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedData {
    /// `name` of the domain: the application.
    pub name: String,
    /// `version` of the domain.
    pub version: String,
    /// The structure's name.
    pub primary_type: &'static str,
    /// Names and values in order.
    pub members: Vec<(&'static str, Member)>,
}

impl TypedData {
    /// keccak-256 over `0x1901`, the domain's separator and the structure's hash: what is signed.
    #[must_use]
    pub fn signing_hash(&self) -> [u8; 32] {
        let text = |text: &str| Member::Text(text.to_owned()).word();
        let domain = hash_words(
            "EIP712Domain(string name,string version)",
            [text(&self.name), text(&self.version)].into_iter(),
        );
        let members: Vec<String> =
            self.members.iter().map(|(name, member)| format!("{} {name}", member.kind())).collect();
        let encoded_type = format!("{}({})", self.primary_type, members.join(","));
        let structure = hash_words(&encoded_type, self.members.iter().map(|(_, member)| member.word()));
        keccak256(&[&[0x19, 0x01], &domain[..], &structure[..]].concat())
    }

    /// The document that wallets and libraries take. The domain's own type is left out of `types`, as `ethers` and VeChain's library want
    /// it; a wallet that asks for it derives it from the domain.
    #[must_use]
    pub fn document(&self) -> Value {
        let types: Vec<Value> = self
            .members
            .iter()
            .map(|(name, member)| json!({ "name": name, "type": member.kind() }))
            .collect();
        let message: Map<String, Value> =
            self.members.iter().map(|(name, member)| ((*name).to_owned(), member.json())).collect();
        json!({
            "domain": { "name": self.name, "version": self.version },
            "types": { (self.primary_type): types },
            "primaryType": self.primary_type,
            "message": message,
        })
    }
}

fn hash_words(encoded_type: &str, words: impl Iterator<Item = [u8; 32]>) -> [u8; 32] {
    let mut bytes = keccak256(encoded_type.as_bytes()).to_vec();
    words.for_each(|word| bytes.extend_from_slice(&word));
    keccak256(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> TypedData {
        TypedData {
            name: "Milestream".into(),
            version: "1".into(),
            primary_type: "Proof",
            members: vec![
                ("statement", Member::Text("Größe ☃".into())),
                ("wallet", Member::Address("0xd989829d88b0ed1b06edf5c50174ecfa64f14a64".parse().unwrap())),
            ],
        }
    }

    #[test]
    fn the_hash_is_that_of_another_implementation() {
        // `hashTypedData` of viem, which VeChain's JavaScript library hashes with, over this document.
        let expected = "b6fb72f5091ace27e735126c0cedb51f25b9cc0f8cd207088d2c4a3869b1b88b";
        assert_eq!(hex::encode(proof().signing_hash()), expected);
        let document = proof().document();
        assert_eq!(document["types"]["Proof"][1], json!({ "name": "wallet", "type": "address" }));
        assert_eq!(document["message"]["statement"], "Größe ☃");
    }

    #[test]
    fn every_part_of_it_counts() {
        let other = |change: fn(&mut TypedData)| {
            let mut changed = proof();
            change(&mut changed);
            changed.signing_hash()
        };
        for hash in [
            other(|data| data.name.push('x')),
            other(|data| data.version.push('x')),
            other(|data| data.primary_type = "Other"),
            other(|data| data.members[0].0 = "text"),
            other(|data| data.members.swap(0, 1)),
            other(|data| data.members[1].1 = Member::Address(Address([7; 20]))),
        ] {
            assert_ne!(hash, proof().signing_hash());
        }
    }
}
