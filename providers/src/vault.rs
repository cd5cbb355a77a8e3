//! Keys of services at rest: sealed by [`schemas::cipher`], whose place is the row's id and the column's name, so that a sealed key opens
//! there alone. In the column stands `v1.<key id>.<base64url of nonce and ciphertext>`; what is longer than the
//! column stands in a file of a folder, and the column says `ref:file:NAME`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::cipher;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Characters that the columns hold.
const COLUMN_MAX: usize = 500;
/// Bytes of a secret or of a file with keys: far more than either needs.
const FILE_MAX: u64 = 64 * 1024;
const IN_FILE: &str = "ref:file:";

/// Why a key of a service cannot be sealed or opened. Holds no key.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// No key to seal with.
    #[error("there is no key that seals keys of services: set services.keys_file or services.keys")]
    NoKey,
    /// A line that is no key.
    #[error("line {0} of the keys that seal is not 64 hex digits")]
    BadKey(usize),
    /// Sealed with a key that is not among ours.
    #[error("sealed with the key {0}, which is not among services.keys")]
    UnknownKey(String),
    /// Changed, cut off, or of another row or column.
    #[error("the sealed text does not open in this place")]
    DoesNotOpen,
    /// A secret is empty or longer than 64 KiB.
    #[error("the secret is empty, longer than 64 KiB, or no UTF-8")]
    BadSecret,
    /// No folder for long ones, or a name that leads out of it.
    #[error("the secret is longer than its column holds, or stands in a file: set services.secrets_folder")]
    NoFolder,
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// A key that seals.
#[derive(Clone)]
struct Key {
    id: String,
    bytes: Zeroizing<[u8; 32]>,
}

/// The keys that open, the first of which seals, and the folder of long secrets.
#[derive(Clone, Default)]
pub struct Vault {
    keys: Vec<Key>,
    folder: Option<PathBuf>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("Vault").field("key_ids", &ids).field("folder", &self.folder).finish()
    }
}

/// Where the keys that seal are.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The keys themselves, as [`Vault::new`] takes them; empty where they stand in a file.
    pub text: SecretString,
    /// A file of keys.
    pub file: PathBuf,
    /// The folder of secrets that are longer than their column.
    pub folder: PathBuf,
}

impl Keys {
    /// The keys as they are now.
    ///
    /// # Errors
    /// [`VaultError`] for keys that are none, and a file that cannot be read. A missing one has no keys.
    pub fn vault(&self) -> Result<Vault, VaultError> {
        let folder = Some(self.folder.clone()).filter(|folder| !folder.as_os_str().is_empty());
        if self.text.expose_secret().is_empty() {
            Vault::from_file(&self.file, folder)
        } else {
            Vault::new(&self.text, folder)
        }
    }
}

/// A fresh key as a line of a keys file.
#[must_use]
pub fn generate_key() -> SecretString {
    hex::encode(cipher::generate_key()).into()
}

impl Vault {
    /// The keys in `text`: 64 hex digits each, on lines of their own or between commas. The first seals, all open.
    ///
    /// # Errors
    /// [`VaultError::BadKey`].
    pub fn new(text: &SecretString, folder: Option<PathBuf>) -> Result<Self, VaultError> {
        let lines = text.expose_secret().split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty());
        let key = |(number, line): (usize, &str)| {
            let mut bytes = Zeroizing::new([0; 32]);
            hex::decode_to_slice(line, &mut bytes[..]).map_err(|_| VaultError::BadKey(number + 1))?;
            let id = hex::encode(&Sha256::digest(*bytes)[..4]);
            Ok(Key { id, bytes })
        };
        Ok(Self { keys: lines.enumerate().map(key).collect::<Result<_, _>>()?, folder })
    }

    /// The keys of a file, as [`Vault::new`] takes them. A file that does not exist has none.
    ///
    /// # Errors
    /// [`VaultError::File`], [`VaultError::BadKey`].
    pub fn from_file(path: &Path, folder: Option<PathBuf>) -> Result<Self, VaultError> {
        match read_secret(path) {
            Ok(text) => Self::new(&text, folder),
            Err(VaultError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { keys: Vec::new(), folder })
            }
            Err(error) => Err(error),
        }
    }

    /// The id of the key that seals: 8 hex digits of its SHA-256.
    #[must_use]
    pub fn current_key(&self) -> Option<&str> {
        self.keys.first().map(|key| key.id.as_str())
    }

    /// Seals a secret for a row's column: what to write there.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn seal(&self, row: Uuid, column: &str, secret: &SecretString) -> Result<String, VaultError> {
        let text = self.sealed(row, column, secret)?;
        if text.len() <= COLUMN_MAX {
            return Ok(text);
        }
        // A name of its own each time: the row points at the old file until it is committed.
        let name = format!("{row}-{column}-{}", Uuid::new_v4().simple());
        let folder = self.folder.as_ref().ok_or(VaultError::NoFolder)?;
        let path = folder.join(&name);
        let failed = |source| VaultError::File { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(format!("{IN_FILE}{name}"))
    }

    fn sealed(&self, row: Uuid, column: &str, secret: &SecretString) -> Result<String, VaultError> {
        let key = self.keys.first().ok_or(VaultError::NoKey)?;
        let secret = secret.expose_secret().as_bytes();
        if secret.is_empty() || secret.len() as u64 > FILE_MAX / 2 {
            return Err(VaultError::BadSecret);
        }
        let sealed = cipher::seal(&key.bytes, &place(row, column), secret).ok_or(VaultError::DoesNotOpen)?;
        let ciphertext = URL_SAFE_NO_PAD.encode(sealed);
        Ok(format!("v1.{}.{ciphertext}", key.id))
    }

    /// Opens what stands in a row's column.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn open(&self, row: Uuid, column: &str, stored: &str) -> Result<SecretString, VaultError> {
        let text = self.text(stored)?;
        let (id, ciphertext) = split(&text).ok_or(VaultError::DoesNotOpen)?;
        let key = self.keys.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| VaultError::UnknownKey(id.chars().take(8).collect()))?;
        let bytes = URL_SAFE_NO_PAD.decode(ciphertext).map_err(|_| VaultError::DoesNotOpen)?;
        let opened = cipher::open(&key.bytes, &place(row, column), &bytes).ok_or(VaultError::DoesNotOpen)?;
        Ok(std::str::from_utf8(&opened).map_err(|_| VaultError::BadSecret)?.into())
    }

    /// The id of the key that what stands in a column is sealed with.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn key_of(&self, stored: &str) -> Result<String, VaultError> {
        let text = self.text(stored)?;
        split(&text).map(|(id, _)| id.to_owned()).ok_or(VaultError::DoesNotOpen)
    }

    /// Removes the file that a column no longer names; a column that names none has none.
    ///
    /// # Errors
    /// [`VaultError::File`].
    pub fn forget(&self, stored: &str) -> Result<(), VaultError> {
        let Some(path) = self.path(stored)? else { return Ok(()) };
        std::fs::remove_file(&path).map_err(|source| VaultError::File { path, source })
    }

    /// The sealed text, from its file where it is too long for the column.
    fn text(&self, stored: &str) -> Result<String, VaultError> {
        match self.path(stored)? {
            None => Ok(stored.to_owned()),
            Some(path) => Ok(read_secret(&path)?.expose_secret().to_owned()),
        }
    }

    fn path(&self, stored: &str) -> Result<Option<PathBuf>, VaultError> {
        let Some(name) = stored.strip_prefix(IN_FILE) else { return Ok(None) };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let folder = self.folder.as_ref().filter(|_| !name.is_empty() && name.chars().all(plain));
        folder.map(|folder| Some(folder.join(name))).ok_or(VaultError::NoFolder)
    }
}

fn place(row: Uuid, column: &str) -> Vec<u8> {
    [row.as_bytes().as_slice(), column.as_bytes()].concat()
}

fn split(text: &str) -> Option<(&str, &str)> {
    text.trim_end().strip_prefix("v1.")?.split_once('.')
}

/// A secret from a file, without the line's end behind it; at most 64 KiB.
///
/// # Errors
/// [`VaultError::File`], [`VaultError::BadSecret`].
pub fn read_secret(path: &Path) -> Result<SecretString, VaultError> {
    let failed = |source| VaultError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    secret_of(file).map_err(failed)?.ok_or(VaultError::BadSecret)
}

/// A secret from a stream, as [`read_secret`]; `None` where it is longer or no UTF-8.
///
/// # Errors
/// Those of reading.
pub fn secret_of(stream: impl std::io::Read) -> std::io::Result<Option<SecretString>> {
    let mut bytes = Zeroizing::new(Vec::new());
    stream.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() as u64 <= FILE_MAX);
    Ok(text.map(|text| text.trim_end_matches(['\r', '\n']).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Uuid = Uuid::from_u128(7);

    fn vault(keys: &[&str]) -> Vault {
        Vault::new(&keys.join("\n").into(), None).unwrap()
    }

    fn old() -> String {
        "11".repeat(32)
    }

    fn new() -> String {
        "22".repeat(32)
    }

    #[test]
    fn a_key_opens_in_its_own_row_and_column_alone() {
        let vault = vault(&[&old()]);
        let sealed = vault.seal(ROW, "api_key", &"AIza-secret".into()).unwrap();
        let id = vault.current_key().unwrap();
        assert!(sealed.starts_with(&format!("v1.{id}.")) && id.len() == 8, "{sealed}");
        assert!(!sealed.contains("AIza"));
        assert_eq!(vault.open(ROW, "api_key", &sealed).unwrap().expose_secret(), "AIza-secret");
        for (row, column) in [(Uuid::from_u128(8), "api_key"), (ROW, "api_secret")] {
            assert!(matches!(vault.open(row, column, &sealed), Err(VaultError::DoesNotOpen)));
        }
        assert_ne!(sealed, vault.seal(ROW, "api_key", &"AIza-secret".into()).unwrap());
    }

    #[test]
    fn what_was_changed_or_cut_off_does_not_open_and_nothing_panics() {
        let vault = vault(&[&old()]);
        let sealed = vault.seal(ROW, "api_key", &"secret".into()).unwrap();
        for end in 0..sealed.len() {
            assert!(vault.open(ROW, "api_key", &sealed[..end]).is_err(), "{end}");
        }
        let changed =
            sealed.replace(&sealed[20..24], if &sealed[20..24] == "AAAA" { "BBBB" } else { "AAAA" });
        assert!(matches!(vault.open(ROW, "api_key", &changed), Err(VaultError::DoesNotOpen)));
        assert!(vault.open(ROW, "api_key", "v2.x.y").is_err());
    }

    #[test]
    fn after_a_new_key_came_first_the_old_one_still_opens_and_the_new_one_seals() {
        let before = vault(&[&old()]);
        let sealed = before.seal(ROW, "api_key", &"secret".into()).unwrap();
        let both = vault(&[&new(), &old()]);
        assert_eq!(both.open(ROW, "api_key", &sealed).unwrap().expose_secret(), "secret");
        let again = both.seal(ROW, "api_key", &"secret".into()).unwrap();
        assert_eq!(both.key_of(&again).unwrap(), vault(&[&new()]).current_key().unwrap());
        let unknown = before.open(ROW, "api_key", &again).unwrap_err().to_string();
        assert!(unknown.contains("is not among services.keys"), "{unknown}");
    }

    #[test]
    fn a_key_of_326_bytes_fits_the_column_and_a_longer_one_stands_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::new(&old().into(), Some(folder.path().join("new"))).unwrap();
        let sealed = |bytes: usize| vault.seal(ROW, "api_key", &"k".repeat(bytes).into()).unwrap();
        assert_eq!(sealed(326).len(), 500);
        let stored = sealed(327);
        assert!(stored.starts_with("ref:file:") && stored.len() <= 500, "{stored}");
        assert_eq!(vault.open(ROW, "api_key", &stored).unwrap().expose_secret(), "k".repeat(327));
        let file = folder.path().join("new").join(&stored[9..]);
        assert!(std::fs::read_to_string(&file).unwrap().starts_with("v1."));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        vault.forget(&stored).unwrap();
        assert!(!file.exists());
        assert!(matches!(vault.open(ROW, "api_key", "ref:file:../x"), Err(VaultError::NoFolder)));
    }

    #[test]
    fn a_key_that_is_none_and_a_secret_that_is_none_are_refused_and_never_shown() {
        assert!(matches!(Vault::new(&"xyz".into(), None), Err(VaultError::BadKey(1))));
        let none = Vault::default();
        assert!(matches!(none.seal(ROW, "api_key", &"s".into()), Err(VaultError::NoKey)));
        assert!(matches!(vault(&[&old()]).seal(ROW, "a", &"".into()), Err(VaultError::BadSecret)));
        assert!(!format!("{:?}", vault(&[&old()])).contains(&old()));
        assert_eq!(generate_key().expose_secret().len(), 64);
    }

    #[test]
    fn keys_stand_on_lines_or_between_commas_and_a_missing_file_has_none() {
        let both = Vault::new(&format!("{},{}\n", new(), old()).into(), None).unwrap();
        assert_eq!(both.current_key(), vault(&[&new()]).current_key());
        let folder = tempfile::tempdir().unwrap();
        assert!(Vault::from_file(&folder.path().join("none"), None).unwrap().current_key().is_none());
    }
}
