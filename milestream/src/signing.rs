//! From the configuration's text to who signs, who pays the gas, and what may be signed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use chain::abi::RewardKind;
use chain::signing::{KmsKey, SignerLimits};
use chain::{Address, Wei};
use processors::chain_submission::signers::KeySource;
use processors::chain_submission::submit::policy::Policy;
use rust_decimal::Decimal;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{Config, GasPayer, Signer};

/// Milliseconds that a signer may be given: more would outlast the lease by far.
const TIMEOUTS: std::ops::RangeInclusive<u64> = 100..=30_000;

/// The distributor's key.
///
/// # Errors
/// For a value that cannot work, with the key.
pub fn signer(config: &Config) -> Result<KeySource> {
    let Signer { kind, address, url, token_file, kms_key_id, kms_region, kms_endpoint } = &config.signer;
    let section =
        Section { name: "signer", address, url, token_file, kms: (kms_key_id, kms_region, kms_endpoint) };
    match kind.as_str() {
        "keystore" => Ok(KeySource::Keystore {
            file: config.chain.keystore_file.clone(),
            password: config.chain.keystore_password_file.clone(),
        }),
        "aws_kms" => section.kms(),
        "remote" => section.remote(),
        other => bail!("signer.kind: {other:?} is not keystore, aws_kms or remote"),
    }
}

/// Whose VTHO pays; none where it is the distributor's.
///
/// # Errors
/// For a value that cannot work, with the key.
pub fn gas_payer(config: &Config) -> Result<Option<KeySource>> {
    let GasPayer { kind, address, url, token_file, keystore_file, keystore_password_file, .. } =
        &config.gas_payer;
    let GasPayer { kms_key_id, kms_region, kms_endpoint, .. } = &config.gas_payer;
    let section =
        Section { name: "gas_payer", address, url, token_file, kms: (kms_key_id, kms_region, kms_endpoint) };
    Ok(Some(match kind.as_str() {
        "distributor" => return Ok(None),
        "keystore" => {
            KeySource::Keystore { file: keystore_file.clone(), password: keystore_password_file.clone() }
        }
        "aws_kms" => section.kms()?,
        "remote" => section.remote()?,
        "sponsor" => KeySource::Sponsor { url: section.url()?, address: section.address()? },
        other => bail!("gas_payer.kind: {other:?} is not distributor, keystore, aws_kms, remote or sponsor"),
    }))
}

/// Bounds of asking a signer.
///
/// # Errors
/// For a time that is too short or too long.
pub fn limits(config: &Config) -> Result<SignerLimits> {
    let timeout = config.signing.timeout_ms;
    ensure!(TIMEOUTS.contains(&timeout), "signing.timeout_ms: {timeout} is not between 100 and 30,000");
    let call = Duration::from_millis(timeout);
    Ok(SignerLimits { connect: SignerLimits::default().connect.min(call), call })
}

/// What may be signed.
///
/// # Errors
/// For a value that cannot work, with the key.
pub fn policy(config: &Config, gas: u64) -> Result<Policy> {
    let section = &config.signing;
    let contracts = section.contracts.iter();
    let contracts = contracts
        .map(|text| text.parse().with_context(|| format!("signing.contracts: {text:?} is no address")));
    let known = RewardKind::ALL.map(RewardKind::method);
    for method in &section.methods {
        ensure!(known.contains(&method.as_str()), "signing.methods: {method:?} is none of {known:?}");
    }
    Ok(Policy {
        reward: b3tr("signing.reward_ceiling", &section.reward_ceiling)?,
        receiver: b3tr("signing.receiver_ceiling", &section.receiver_ceiling)?,
        batch: b3tr("signing.batch_ceiling", &section.batch_ceiling)?,
        // VTHO has as many decimals as B3TR.
        gas_price: b3tr("signing.gas_price_ceiling", &section.gas_price_ceiling)?,
        gas,
        contracts: contracts.collect::<Result<_>>()?,
        methods: section.methods.clone(),
    })
}

/// An amount of coins of 18 decimals, above zero.
///
/// # Errors
/// For what is none, with the key.
pub fn b3tr(key: &str, text: &str) -> Result<Wei> {
    let amount: Decimal = text.parse().with_context(|| format!("{key} is no decimal number"))?;
    ensure!(amount > Decimal::ZERO, "{key}: {text} is not above 0");
    Wei::from_b3tr(amount).with_context(|| key.to_owned())
}

struct Section<'a> {
    name: &'static str,
    address: &'a str,
    url: &'a SecretString,
    token_file: &'a Path,
    kms: (&'a str, &'a str, &'a str),
}

impl Section<'_> {
    fn kms(&self) -> Result<KeySource> {
        let (name, (key_id, region, endpoint)) = (self.name, self.kms);
        ensure!(!key_id.is_empty(), "{name}.kms_key_id is empty: name the key in KMS");
        ensure!(!region.is_empty(), "{name}.kms_region is empty: name the key's region");
        let endpoint = (!endpoint.is_empty()).then(|| endpoint.to_owned());
        let key = KmsKey { key_id: key_id.to_owned(), region: region.to_owned(), endpoint };
        let address = if self.address.is_empty() { None } else { Some(self.address()?) };
        Ok(KeySource::Kms { key, address })
    }

    fn remote(&self) -> Result<KeySource> {
        let token = (!self.token_file.as_os_str().is_empty()).then(|| PathBuf::from(self.token_file));
        Ok(KeySource::Remote { url: self.url()?, address: self.address()?, token })
    }

    fn url(&self) -> Result<SecretString> {
        ensure!(!self.url.expose_secret().is_empty(), "{}.url is empty: name the service", self.name);
        Ok(self.url.clone())
    }

    fn address(&self) -> Result<Address> {
        let name = self.name;
        ensure!(!self.address.is_empty(), "{name}.address is empty: what it signs for is checked");
        self.address.parse().with_context(|| format!("{name}.address is no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "0xd989829d88b0ed1b06edf5c50174ecfa64f14a64";

    #[test]
    fn without_settings_the_keystore_signs_and_the_distributor_pays() {
        let config = Config::default();
        assert!(matches!(signer(&config).unwrap(), KeySource::Keystore { .. }));
        assert!(gas_payer(&config).unwrap().is_none());
        let policy = policy(&config, 7).unwrap();
        assert_eq!((policy.gas, policy.reward), (7, b3tr("x", "1000").unwrap()));
        assert_eq!(policy.gas_price, Wei::from(500_000_000_000_000));
    }

    #[test]
    fn a_setting_that_is_missing_or_wrong_is_named() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 10] = [
            (|c| c.signer.kind = "hsm".into(), "signer.kind"),
            (|c| c.signer.kind = "remote".into(), "signer.url"),
            (
                |c| {
                    c.signer.kind = "remote".into();
                    c.signer.url = "https://s/".to_owned().into();
                },
                "signer.address",
            ),
            (|c| c.signer.kind = "aws_kms".into(), "signer.kms_key_id"),
            (|c| c.gas_payer.kind = "sponsor".into(), "gas_payer.url"),
            (|c| c.gas_payer.kind = "none".into(), "gas_payer.kind"),
            (|c| c.signing.reward_ceiling = "0".into(), "signing.reward_ceiling"),
            (|c| c.signing.contracts = vec!["pool".into()], "signing.contracts"),
            (|c| c.signing.methods = vec!["transfer".into()], "signing.methods"),
            (|c| c.signing.timeout_ms = 0, "signing.timeout_ms"),
        ];
        for (change, key) in cases {
            let mut config = Config::default();
            change(&mut config);
            let all = signer(&config)
                .map(drop)
                .and_then(|()| gas_payer(&config).map(drop))
                .and_then(|()| policy(&config, 1).map(drop))
                .and_then(|()| limits(&config).map(drop));
            let error = all.unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}: {error}");
        }
    }

    #[test]
    fn a_sponsor_and_a_key_in_kms_are_taken_as_they_are_written() {
        let mut config = Config::default();
        config.gas_payer.kind = "sponsor".into();
        config.gas_payer.url = "https://sponsor/by/1".to_owned().into();
        config.gas_payer.address = ADDRESS.into();
        let payer = gas_payer(&config).unwrap().unwrap();
        assert!(matches!(&payer, KeySource::Sponsor { address, .. } if address.to_string() == ADDRESS));
        assert!(!format!("{payer:?}").contains("by/1"), "it may carry a key");
        config.signer.kind = "aws_kms".into();
        config.signer.kms_key_id = "alias/d".into();
        config.signer.kms_region = "eu-central-1".into();
        assert!(matches!(signer(&config).unwrap(), KeySource::Kms { address: None, .. }));
    }
}
