//! The check of a photo's bytes before it is accepted.

use schemas::events::Fault;

/// Looks at a photo without decoding its pixels.
pub trait PhotoCheck: Send + Sync + 'static {
    /// The MIME type by the magic bytes.
    ///
    /// # Errors
    /// Why the photo is refused: `unsupported_format`, `truncated_image` or `low_resolution`.
    fn check(&self, bytes: &[u8]) -> Result<&'static str, Fault>;
}

/// The check of the `reading` crate, the same that the stages make.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderCheck;

impl PhotoCheck for HeaderCheck {
    fn check(&self, bytes: &[u8]) -> Result<&'static str, Fault> {
        reading::inspect(bytes).map(|info| info.format.mime())
    }
}
