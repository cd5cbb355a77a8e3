//! What a reward says about the action it is for. The pool builds its on-chain JSON by joining strings, so what we pass must
//! already be escaped: a quote or a line break in a description would break the record for good.

/// Kinds of proof that the pool takes (`X2EarnRewardsPool: Invalid proof type` for any other).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProofType {
    /// A picture's address.
    Image,
    /// A page's address.
    Link,
    /// Plain text.
    Text,
    /// A film's address.
    Video,
}

impl ProofType {
    /// As the contract spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Link => "link",
            Self::Text => "text",
            Self::Video => "video",
        }
    }
}

/// Why a proof cannot be put on the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The pool would revert with `Invalid impact key`.
    #[error("the impact key {0:?} is not one that the pool allows")]
    ImpactKey(String),
}

/// Evidence and impact of a rewarded action. Empty parts are allowed: the pool then writes an empty proof.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Proof {
    /// Evidence, as (kind, address or text). The contract keeps one of each kind: the last one given.
    pub evidence: Vec<(ProofType, String)>,
    /// Impact as (key, whole number in the key's smallest unit): `carbon` in grams of CO2e. Mileage is no key of the pool's.
    pub impacts: Vec<(String, u64)>,
    /// A sentence for people.
    pub description: String,
}

impl Proof {
    /// Refuses impact keys that the pool does not allow.
    ///
    /// # Errors
    /// [`ProofError::ImpactKey`] with the first one that is not in `allowed` (the pool's `getAllowedImpactKeys()`).
    pub fn check(&self, allowed: &[String]) -> Result<(), ProofError> {
        match self.impacts.iter().find(|(key, _)| !allowed.contains(key)) {
            Some((key, _)) => Err(ProofError::ImpactKey(key.clone())),
            None => Ok(()),
        }
    }
}

/// The text as it stands between the quotes of a JSON string (RFC 8259 section 7).
pub(super) fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_impact_key_that_the_pool_does_not_allow_is_refused_before_it_reverts() {
        let proof = Proof { impacts: vec![("carbon".into(), 1), ("mileage".into(), 2)], ..Proof::default() };
        let allowed = ["carbon".to_owned(), "water".to_owned()];
        assert_eq!(proof.check(&allowed), Err(ProofError::ImpactKey("mileage".into())));
        assert_eq!(Proof::default().check(&[]), Ok(()));
    }

    proptest! {
        #[test]
        fn any_text_joined_into_json_as_the_contract_does_reads_back(text: String) {
            let json = format!("{{\"version\": 2,\"description\": \"{}\"}}", json_escaped(&text));
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["description"].as_str(), Some(text.as_str()));
        }
    }
}
