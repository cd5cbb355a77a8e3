//! The signer's key at rest: Web3 Secret Storage, version 3 (the format of geth, VeWorld and the VeChain SDK), with scrypt,
//! aes-128-ctr and a keccak-256 check value. A wrong password and a damaged file cannot be distinguished, by design of the format.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use aes::cipher::{KeyIvInit, StreamCipher};
use rand::RngCore;
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::hash::keccak256;
use crate::id::Address;
use crate::signer::{KEY_LEN, Signer, SignerError};

/// Memory that a foreign file may make scrypt use: 128 * n * r bytes. The usual n = 2^18, r = 8 needs 256 MiB.
const MAX_SCRYPT_MEMORY: u64 = 512 * 1024 * 1024;
/// Passes that a foreign file may ask for; keystores in use have 1.
const MAX_SCRYPT_PASSES: u32 = 16;
/// A keystore file has about 500 bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Bytes of the derived key: 16 that encrypt, 16 that go into the check value.
const DERIVED_LEN: usize = 32;

/// Why a keystore cannot be written or opened. Carries neither key nor password.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Others than its owner can change or read the file.
    #[error("{} can be read or changed by others (mode {mode:03o}): run chmod 600 on it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The text is no keystore: no JSON, a field missing, a wrong length.
    #[error("not a keystore of version 3: {0}")]
    Format(String),
    /// Another version, cipher or key derivation than this library reads.
    #[error("the keystore uses {0}, which is not supported (version 3, aes-128-ctr and scrypt are)")]
    Unsupported(String),
    /// Cost parameters that scrypt forbids (n must be below 2^(16 r)) or that would use too much memory or time.
    #[error("the keystore's scrypt cost is invalid or too high")]
    Cost,
    /// The check value does not fit.
    #[error("wrong password, or a damaged keystore")]
    Password,
    /// The password is missing or empty, or its variable or file holds no UTF-8.
    #[error("no password in {0}")]
    NoPassword(String),
    /// The decrypted key belongs to another address than the file says.
    #[error("the keystore says {stated} and holds the key of {found}")]
    Address {
        /// What the file says.
        stated: Address,
        /// What the key gives.
        found: Address,
    },
    /// The decrypted bytes are no private key.
    #[error(transparent)]
    Key(#[from] SignerError),
}

/// The cost of guessing a password: memory is `128 * 2^log_n * 8` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScryptCost {
    /// Base-2 logarithm of n, 1 to 19.
    pub log_n: u8,
}

impl ScryptCost {
    /// geth's standard: n = 2^18, 256 MiB, about a second.
    pub const STANDARD: Self = Self { log_n: 18 };
    /// geth's light cost: n = 2^12, 4 MiB. For local chains.
    pub const LIGHT: Self = Self { log_n: 12 };
}

/// A password; wiped from memory on drop, never printed.
#[derive(Clone, Debug)]
pub struct Password(SecretString);

impl Password {
    /// Takes a password that the caller already holds.
    #[must_use]
    pub fn new(password: SecretString) -> Self {
        Self(password)
    }

    /// Its text, for a secret that is kept in the same way and is no password of a keystore.
    #[must_use]
    pub fn into_secret(self) -> SecretString {
        self.0
    }

    /// From an environment variable.
    ///
    /// # Errors
    /// [`KeystoreError::NoPassword`] when it is not set, empty or no UTF-8.
    pub fn from_env(name: &str) -> Result<Self, KeystoreError> {
        match std::env::var(name) {
            Ok(password) if !password.is_empty() => Ok(Self(password.into())),
            _ => Err(KeystoreError::NoPassword(format!("the environment variable {name}"))),
        }
    }

    /// From the first line of a file (a mounted secret).
    ///
    /// # Errors
    /// [`KeystoreError::File`], or [`KeystoreError::NoPassword`] when the line is empty or no UTF-8.
    pub fn from_file(path: &Path) -> Result<Self, KeystoreError> {
        let bytes = Zeroizing::new(read_bounded(path)?);
        let line = std::str::from_utf8(&bytes).ok().and_then(|text| text.lines().next()).unwrap_or_default();
        if line.is_empty() {
            return Err(KeystoreError::NoPassword(path.display().to_string()));
        }
        Ok(Self(line.to_owned().into()))
    }
}

/// An encrypted private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keystore {
    version: u32,
    id: Uuid,
    /// Hex digits without `0x`, as geth writes it; some tools leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    kdf: String,
    kdfparams: serde_json::Value,
    mac: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Serialize, Deserialize)]
struct ScryptParams {
    dklen: u32,
    n: u64,
    r: u32,
    p: u32,
    salt: String,
}

/// A fresh private key from the operating system's random numbers.
#[must_use]
pub fn generate_key() -> SecretBox<[u8; KEY_LEN]> {
    let mut key = SecretBox::new(Box::new([0; KEY_LEN]));
    // All but 2^-128 of the draws are keys.
    while Signer::new(&key).is_err() {
        rand::rng().fill_bytes(key.expose_secret_mut());
    }
    key
}

impl Keystore {
    /// Encrypts a key.
    ///
    /// # Errors
    /// [`KeystoreError::Key`] when the bytes are no private key; [`KeystoreError::Cost`].
    pub fn encrypt(
        key: &SecretBox<[u8; KEY_LEN]>,
        password: &Password,
        cost: ScryptCost,
    ) -> Result<Self, KeystoreError> {
        let address = Signer::new(key)?.address();
        let (mut salt, mut iv) = ([0; 32], [0; 16]);
        rand::rng().fill_bytes(&mut salt);
        rand::rng().fill_bytes(&mut iv);
        let n = 1_u64.checked_shl(cost.log_n.into()).ok_or(KeystoreError::Cost)?;
        let params = ScryptParams { dklen: 32, n, r: 8, p: 1, salt: hex::encode(salt) };
        let derived = derive(&params, password)?;
        let mut text = Zeroizing::new(*key.expose_secret());
        apply_cipher(&derived, &iv, &mut text[..]);
        Ok(Self {
            version: 3,
            id: Uuid::new_v4(),
            address: Some(hex::encode(address.as_bytes())),
            crypto: Crypto {
                cipher: "aes-128-ctr".to_owned(),
                cipherparams: CipherParams { iv: hex::encode(iv) },
                ciphertext: hex::encode(&text[..]),
                kdf: "scrypt".to_owned(),
                kdfparams: serde_json::to_value(&params).map_err(|e| KeystoreError::Format(e.to_string()))?,
                mac: hex::encode(check_value(&derived, &text[..])),
            },
        })
    }

    /// Decrypts the key into a signer.
    ///
    /// # Errors
    /// [`KeystoreError::Unsupported`], [`KeystoreError::Cost`], [`KeystoreError::Format`], [`KeystoreError::Password`],
    /// [`KeystoreError::Key`], [`KeystoreError::Address`].
    pub fn open(&self, password: &Password) -> Result<Signer, KeystoreError> {
        self.check_supported()?;
        let params: ScryptParams = ScryptParams::deserialize(&self.crypto.kdfparams)
            .map_err(|_| KeystoreError::Format("kdfparams".to_owned()))?;
        let iv: [u8; 16] = fixed(&self.crypto.cipherparams.iv, "iv")?;
        let mac: [u8; 32] = fixed(&self.crypto.mac, "mac")?;
        let mut text: Zeroizing<[u8; KEY_LEN]> =
            Zeroizing::new(fixed(&self.crypto.ciphertext, "ciphertext")?);
        let derived = derive(&params, password)?;
        // The comparison guards a local file against a wrong password; there is no remote caller to time it.
        if check_value(&derived, &text[..]) != mac {
            return Err(KeystoreError::Password);
        }
        apply_cipher(&derived, &iv, &mut text[..]);
        let signer = Signer::new(&SecretBox::new(Box::new(*text)))?;
        match self.address()? {
            Some(stated) if stated != signer.address() => {
                Err(KeystoreError::Address { stated, found: signer.address() })
            }
            _ => Ok(signer),
        }
    }

    /// The address that the file states; no proof without opening it.
    ///
    /// # Errors
    /// [`KeystoreError::Format`].
    pub fn address(&self) -> Result<Option<Address>, KeystoreError> {
        let Some(text) = &self.address else { return Ok(None) };
        fixed(text.strip_prefix("0x").unwrap_or(text), "address").map(|bytes| Some(Address(bytes)))
    }

    /// Reads a keystore's JSON.
    ///
    /// # Errors
    /// [`KeystoreError::Format`], [`KeystoreError::Unsupported`].
    pub fn from_json(json: &str) -> Result<Self, KeystoreError> {
        // serde_json's messages name lines and fields and repeat short values; nothing in this file is secret in the clear.
        let keystore: Self = serde_json::from_str(json).map_err(|e| KeystoreError::Format(e.to_string()))?;
        keystore.check_supported()?;
        Ok(keystore)
    }

    /// The keystore's JSON.
    ///
    /// # Errors
    /// [`KeystoreError::Format`], which no keystore made here gives.
    pub fn to_json(&self) -> Result<String, KeystoreError> {
        serde_json::to_string_pretty(self).map_err(|e| KeystoreError::Format(e.to_string()))
    }

    /// Reads a keystore file that only its owner, and at most its group, can read.
    ///
    /// # Errors
    /// [`KeystoreError::Mode`], [`KeystoreError::File`] and those of [`Keystore::from_json`].
    pub fn read(path: &Path) -> Result<Self, KeystoreError> {
        check_mode(path)?;
        let bytes = read_bounded(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| KeystoreError::Format(e.to_string()))?;
        Self::from_json(text)
    }

    /// Writes a new file that only its owner can read, and flushes it to the disk. Never overwrites: a key lost is money lost.
    ///
    /// # Errors
    /// [`KeystoreError::File`], also when the file exists.
    pub fn write_new(&self, path: &Path) -> Result<(), KeystoreError> {
        let json = self.to_json()?;
        let failed = |source| KeystoreError::File { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        file.write_all(json.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    fn check_supported(&self) -> Result<(), KeystoreError> {
        let Crypto { cipher, kdf, .. } = &self.crypto;
        if self.version != 3 {
            return Err(KeystoreError::Unsupported(format!("version {}", self.version)));
        }
        if cipher != "aes-128-ctr" {
            return Err(KeystoreError::Unsupported(format!("the cipher {cipher:?}")));
        }
        if kdf != "scrypt" {
            return Err(KeystoreError::Unsupported(format!("the key derivation {kdf:?}")));
        }
        Ok(())
    }
}

/// A container's mounted secret belongs to root and is read through a group, so that a group may read; others may do nothing.
#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), KeystoreError> {
    let failed = |source| KeystoreError::File { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(failed)?;
    let mode = std::os::unix::fs::MetadataExt::mode(&found) & 0o777;
    if mode & 0o027 == 0 { Ok(()) } else { Err(KeystoreError::Mode { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), KeystoreError> {
    Ok(())
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, KeystoreError> {
    let failed = |source| KeystoreError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let read = std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE_BYTES + 1), &mut bytes);
    match read.map_err(failed)? as u64 {
        0..=MAX_FILE_BYTES => Ok(bytes),
        _ => Err(failed(std::io::Error::other(format!("longer than {MAX_FILE_BYTES} bytes")))),
    }
}

fn fixed<const N: usize>(text: &str, name: &str) -> Result<[u8; N], KeystoreError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| KeystoreError::Format(format!("{name}: expected {} hex digits", 2 * N)))?;
    Ok(bytes)
}

fn derive(params: &ScryptParams, password: &Password) -> Result<Zeroizing<[u8; DERIVED_LEN]>, KeystoreError> {
    let memory = params.n.checked_mul(u64::from(params.r)).and_then(|blocks| blocks.checked_mul(128));
    let bounded = memory.is_some_and(|bytes| bytes <= MAX_SCRYPT_MEMORY) && params.p <= MAX_SCRYPT_PASSES;
    if !params.n.is_power_of_two() || !bounded || params.dklen as usize != DERIVED_LEN {
        return Err(KeystoreError::Cost);
    }
    // n is a power of two below 2^33, so its logarithm fits.
    let log_n = u8::try_from(params.n.trailing_zeros()).map_err(|_| KeystoreError::Cost)?;
    let cost =
        scrypt::Params::new(log_n, params.r, params.p, DERIVED_LEN).map_err(|_| KeystoreError::Cost)?;
    let salt = hex::decode(&params.salt).map_err(|_| KeystoreError::Format("salt".to_owned()))?;
    let mut derived = Zeroizing::new([0; DERIVED_LEN]);
    scrypt::scrypt(password.0.expose_secret().as_bytes(), &salt, &cost, &mut derived[..])
        .map_err(|_| KeystoreError::Cost)?;
    Ok(derived)
}

/// aes-128 in counter mode, big-endian over all 16 bytes: its own inverse.
fn apply_cipher(derived: &[u8; DERIVED_LEN], iv: &[u8; 16], text: &mut [u8]) {
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&derived[..16]);
    ctr::Ctr128BE::<aes::Aes128>::new(&(*key).into(), iv.into()).apply_keystream(text);
}

/// keccak-256 of the derived key's second half and the ciphertext.
fn check_value(derived: &[u8; DERIVED_LEN], ciphertext: &[u8]) -> [u8; 32] {
    let mut input = Zeroizing::new(derived[16..].to_vec());
    input.extend_from_slice(ciphertext);
    keccak256(&input)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `@vechain/sdk-core` 2.1.0 (`keystore.encrypt`) for the key below.
    const VECTOR: &str = r#"{"address":"d989829d88b0ed1b06edf5c50174ecfa64f14a64","id":"59d54b7e-c86d-4753-9683-f9d627b90eab","version":3,
        "Crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"7dcc6ecaa244d62c0d18d3ff44669d82"},
        "ciphertext":"347648a50b7e4c7463d2225e50b6477c36ddbb86352dae9df48ca50d9768ceec","kdf":"scrypt",
        "kdfparams":{"salt":"8e28f26c61912bc94c5f2e91e6db1cfb1abb0e9126929c41f198cdff13284858","n":131072,"dklen":32,"p":1,"r":8},
        "mac":"54ba72b19172386251e729de5679b22b155ecf285d35852ac469ffa9a0cbcf60"}}"#;
    const VECTOR_PASSWORD: &str = "pässword ☃";
    const VECTOR_KEY: &str = "7582be841ca040aa940fff6c05773129e135623e41acce3e0b8ba520dc1ae26a";

    fn password(text: &str) -> Password {
        Password::new(text.to_owned().into())
    }

    fn light() -> (Signer, Keystore) {
        let key = generate_key();
        let keystore = Keystore::encrypt(&key, &password("p"), ScryptCost::LIGHT).unwrap();
        (Signer::new(&key).unwrap(), keystore)
    }

    fn changed(
        keystore: &Keystore,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> Result<Signer, KeystoreError> {
        let mut json = serde_json::from_str(&keystore.to_json().unwrap()).unwrap();
        change(&mut json);
        Keystore::from_json(&json.to_string())?.open(&password("p"))
    }

    #[test]
    fn a_keystore_that_vechains_own_library_wrote_opens_to_its_key() {
        let signer = Keystore::from_json(VECTOR).unwrap().open(&password(VECTOR_PASSWORD)).unwrap();
        assert_eq!(signer.address(), Signer::from_hex(VECTOR_KEY).unwrap().address());
    }

    #[test]
    fn a_fresh_keystore_opens_with_its_password_and_with_no_other() {
        let (signer, keystore) = light();
        assert_eq!(keystore.address().unwrap(), Some(signer.address()));
        let read = Keystore::from_json(&keystore.to_json().unwrap()).unwrap();
        assert_eq!(read.open(&password("p")).unwrap().address(), signer.address());
        assert!(matches!(read.open(&password("P")), Err(KeystoreError::Password)));
    }

    #[test]
    fn two_keystores_of_one_key_share_neither_salt_nor_text() {
        let key = generate_key();
        let [a, b] = [0, 1].map(|_| Keystore::encrypt(&key, &password("p"), ScryptCost::LIGHT).unwrap());
        assert_ne!(a.crypto.kdfparams["salt"], b.crypto.kdfparams["salt"]);
        assert_ne!(a.crypto.ciphertext, b.crypto.ciphertext);
    }

    #[test]
    fn a_damaged_or_foreign_keystore_is_refused_with_the_reason() {
        let (_, keystore) = light();
        let flip = |text: &serde_json::Value| {
            let text = text.as_str().unwrap();
            format!("{}{}", if text.starts_with('0') { '1' } else { '0' }, &text[1..])
        };
        let crypto =
            |name: &str| changed(&keystore, |json| json["crypto"][name] = flip(&json["crypto"][name]).into());
        assert!(matches!(crypto("ciphertext"), Err(KeystoreError::Password)));
        assert!(matches!(crypto("mac"), Err(KeystoreError::Password)));
        assert!(matches!(crypto("cipher"), Err(KeystoreError::Unsupported(_))));
        assert!(matches!(
            changed(&keystore, |j| j["crypto"]["kdf"] = "pbkdf2".into()),
            Err(KeystoreError::Unsupported(_))
        ));
        assert!(matches!(
            changed(&keystore, |j| j["version"] = 1.into()),
            Err(KeystoreError::Unsupported(_))
        ));
        assert!(matches!(
            changed(&keystore, |j| j["crypto"]["mac"] = "00".into()),
            Err(KeystoreError::Format(_))
        ));
        assert!(matches!(
            changed(&keystore, |j| j["address"] = "00".repeat(20).into()),
            Err(KeystoreError::Address { .. })
        ));
        // A damaged iv is not covered by the check value: another key comes out, and the address shows it.
        let iv = changed(&keystore, |j| j["crypto"]["cipherparams"]["iv"] = "00".repeat(16).into());
        assert!(matches!(iv, Err(KeystoreError::Address { .. } | KeystoreError::Key(_))));
        assert!(matches!(Keystore::from_json("<html>"), Err(KeystoreError::Format(_))));
    }

    #[test]
    fn a_keystore_that_would_eat_the_memory_is_refused_before_it_does() {
        let (_, keystore) = light();
        let costs = [
            ("n", 1_u64 << 40),
            ("n", 1 << 20),
            ("n", 12_345),
            ("n", 0),
            ("r", 1 << 20),
            ("p", 1_000),
            ("dklen", 64),
        ];
        for (name, value) in costs {
            let opened = changed(&keystore, |json| json["crypto"]["kdfparams"][name] = value.into());
            assert!(matches!(opened, Err(KeystoreError::Cost)), "{name} = {value}");
        }
        let cost = ScryptCost { log_n: 64 };
        assert!(matches!(Keystore::encrypt(&generate_key(), &password("p"), cost), Err(KeystoreError::Cost)));
    }

    #[test]
    fn a_file_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let (signer, keystore) = light();
        keystore.write_new(&path).unwrap();
        assert!(matches!(light().1.write_new(&path), Err(KeystoreError::File { .. })));
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
        let opened = Keystore::read(&path).unwrap().open(&password("p")).unwrap();
        assert_eq!(opened.address(), signer.address());
    }

    #[cfg(unix)]
    #[test]
    fn a_keystore_that_others_can_read_is_refused_until_its_mode_is_mended() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystore.json");
        let key = SecretBox::new(Box::new([7; 32]));
        Keystore::encrypt(&key, &password("p"), ScryptCost::LIGHT).unwrap().write_new(&path).unwrap();
        for (mode, good) in [(0o644, false), (0o604, false), (0o620, false), (0o640, true), (0o400, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = Keystore::read(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains(&format!("mode {mode:03o}")), "{error}");
            }
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "open sesame\r\nsecond\n").unwrap();
        let password = Password::from_file(&path).unwrap();
        assert_eq!(password.0.expose_secret(), "open sesame");
        assert!(!format!("{password:?}").contains("sesame"));
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(Password::from_file(&path), Err(KeystoreError::NoPassword(_))));
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(matches!(Password::from_file(&path), Err(KeystoreError::File { .. })));
        assert!(matches!(Password::from_file(&folder.path().join("none")), Err(KeystoreError::File { .. })));
        assert!(matches!(
            Password::from_env("MILESTREAM_NO_SUCH_VARIABLE"),
            Err(KeystoreError::NoPassword(_))
        ));
    }
}
