//! Private text inside events: sealed with a key per user, so that deleting the key erases the text from topics
//! that are kept for good.
//!
//! Format: base64 of what [`crate::cipher`] seals; its place is the upload's id, so a sealed text cannot be moved to another upload.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::cipher;
use crate::ids::UploadId;

/// The key of one user. Never printed.
#[derive(Clone)]
pub struct UserKey([u8; 32]);

impl std::fmt::Debug for UserKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserKey([redacted])")
    }
}

/// A sealed text as it stands in an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

/// Why a text could not be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// The stored key is not 32 bytes.
    #[error("a user key has 32 bytes, this one has {0}")]
    KeyLength(usize),
    /// Another key, another upload, or changed bytes.
    #[error("the sealed text does not open with this key and upload")]
    DoesNotOpen,
}

impl UserKey {
    /// A new random key.
    #[must_use]
    pub fn generate() -> Self {
        Self(*cipher::generate_key())
    }

    /// The key as stored in `user_keys`.
    ///
    /// # Errors
    /// [`SealError::KeyLength`] unless there are 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        bytes.try_into().map(Self).map_err(|_| SealError::KeyLength(bytes.len()))
    }

    /// The bytes to store in `user_keys`, and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Seals a text for one upload.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`] never in practice: the cipher refuses only texts over 256 GiB.
    pub fn seal(&self, upload: UploadId, text: &str) -> Result<Sealed, SealError> {
        let sealed = cipher::seal(&self.0, upload.0.as_bytes(), text.as_bytes());
        sealed.map(|sealed| Sealed(STANDARD.encode(sealed))).ok_or(SealError::DoesNotOpen)
    }

    /// Opens a sealed text.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`] with another key or upload, or after any change.
    pub fn open(&self, upload: UploadId, sealed: &Sealed) -> Result<String, SealError> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_| SealError::DoesNotOpen)?;
        let text = cipher::open(&self.0, upload.0.as_bytes(), &bytes).ok_or(SealError::DoesNotOpen)?;
        std::str::from_utf8(&text).map(str::to_owned).map_err(|_| SealError::DoesNotOpen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_sealed_text_opens_only_with_its_key_and_its_upload() {
        let (key, upload) = (UserKey::generate(), UploadId(Uuid::from_u128(1)));
        let sealed = key.seal(upload, "IMG_0042.jpg").unwrap();
        assert_eq!(key.open(upload, &sealed).unwrap(), "IMG_0042.jpg");
        assert!(UserKey::generate().open(upload, &sealed).is_err());
        assert!(key.open(UploadId(Uuid::from_u128(2)), &sealed).is_err());
        assert_eq!(format!("{key:?}"), "UserKey([redacted])");
    }
}
