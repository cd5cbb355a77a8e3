//! Who signs, who pays the gas, and what may be signed.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::sections::redacted;

/// What may be signed, whoever signs; what exceeds it is signed by nobody. `chain.daily_ceiling` bounds a day. Amounts are decimal strings
/// of B3TR.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Signing {
    /// B3TR of one reward at most.
    pub reward_ceiling: String,
    /// B3TR that one receiver is paid in a day (UTC) at most.
    pub receiver_ceiling: String,
    /// B3TR of one transaction at most.
    pub batch_ceiling: String,
    /// VTHO offered for a unit of gas at most, a decimal string. The network's lowest price is 0.00001.
    pub gas_price_ceiling: String,
    /// Contracts that may be called. Empty: the pool of the network's rows.
    pub contracts: Vec<String>,
    /// Names of the pool's methods that may be called. Empty: every one that pays a reward.
    pub methods: Vec<String>,
    /// Milliseconds that a signer outside of this process has for a response, 100 to 30,000.
    pub timeout_ms: u64,
}

/// The distributor's key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Signer {
    /// `keystore` (`chain.keystore_file`), `aws_kms` or `remote`.
    pub kind: String,
    /// The address that it signs for: needed for `remote`, and checked with `aws_kms` where it is given.
    pub address: String,
    /// `remote`: the signer's address, https unless it is on this machine.
    #[serde(serialize_with = "redacted")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub url: SecretString,
    /// `remote`: a file whose first line is the bearer token. Empty: none is sent.
    pub token_file: PathBuf,
    /// `aws_kms`: id, ARN or alias of an `ECC_SECG_P256K1` key. Credentials are those in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_SESSION_TOKEN`, or of the instance's role.
    pub kms_key_id: String,
    /// `aws_kms`: its region.
    pub kms_region: String,
    /// `aws_kms`: another address than the region's, such as a private endpoint's.
    pub kms_endpoint: String,
}

/// Who pays the gas of payments (VIP-191).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct GasPayer {
    /// `distributor`, or another account: `keystore`, `aws_kms`, `remote` or `sponsor`, a service that takes `{"origin", "raw"}`.
    pub kind: String,
    /// The address that it signs for: needed for `remote` and `sponsor`, and checked with `aws_kms` where it is given.
    pub address: String,
    /// `remote` and `sponsor`: the service's address, https unless it is on this machine.
    #[serde(serialize_with = "redacted")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub url: SecretString,
    /// `remote`: a file whose first line is the bearer token. Empty: none is sent.
    pub token_file: PathBuf,
    /// `keystore`: the file.
    pub keystore_file: PathBuf,
    /// `keystore`: a file whose first line is its password.
    pub keystore_password_file: PathBuf,
    /// `aws_kms`: as of `[signer]`.
    pub kms_key_id: String,
    /// `aws_kms`: its region.
    pub kms_region: String,
    /// `aws_kms`: another address than the region's.
    pub kms_endpoint: String,
}

impl Default for Signing {
    fn default() -> Self {
        Self {
            reward_ceiling: "1000".into(),
            receiver_ceiling: "1000".into(),
            batch_ceiling: "5000".into(),
            gas_price_ceiling: "0.0005".into(),
            contracts: Vec::new(),
            methods: Vec::new(),
            timeout_ms: 5_000,
        }
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self {
            kind: "keystore".into(),
            address: String::new(),
            url: SecretString::default(),
            token_file: PathBuf::new(),
            kms_key_id: String::new(),
            kms_region: String::new(),
            kms_endpoint: String::new(),
        }
    }
}

impl Default for GasPayer {
    fn default() -> Self {
        Self {
            kind: "distributor".into(),
            address: String::new(),
            url: SecretString::default(),
            token_file: PathBuf::new(),
            keystore_file: "keys/gas-payer.json".into(),
            keystore_password_file: "keys/gas-payer.password".into(),
            kms_key_id: String::new(),
            kms_region: String::new(),
            kms_endpoint: String::new(),
        }
    }
}
