//! The check of a photo's bytes before it is accepted.

use reading::FileInfo;
use schemas::events::Fault;
use schemas::reason::Reason;

use crate::http::problem::{
    ApiError, LOW_RESOLUTION, PHOTO_REFUSED, TOO_MANY_PIXELS, TRUNCATED_IMAGE, UNSUPPORTED_FORMAT,
};

/// Looks at a photo without decoding its pixels.
pub trait PhotoCheck: Send + Sync + 'static {
    /// What the file's header says.
    ///
    /// # Errors
    /// Why the photo is refused: `unsupported_format`, `truncated_image` or `low_resolution`.
    fn check(&self, bytes: &[u8]) -> Result<FileInfo, Fault>;
}

/// The check of the `reading` crate, the same that the stages make.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderCheck;

impl PhotoCheck for HeaderCheck {
    fn check(&self, bytes: &[u8]) -> Result<FileInfo, Fault> {
        reading::inspect(bytes)
    }
}

/// The refusal of a photo.
pub(crate) fn refusal(fault: Fault) -> ApiError {
    let problem = match fault.reason {
        Reason::UnsupportedFormat if is_bomb(&fault) => TOO_MANY_PIXELS,
        Reason::UnsupportedFormat => UNSUPPORTED_FORMAT,
        Reason::TruncatedImage => TRUNCATED_IMAGE,
        Reason::LowResolution => LOW_RESOLUTION,
        _ => PHOTO_REFUSED,
    };
    problem.because(fault.detail).field("photo")
}

/// A picture that would unpack beyond the pixel cap. `reading::inspect` says so in the detail, as `schemas` has no reason of its own for
/// it.
fn is_bomb(fault: &Fault) -> bool {
    fault.detail.contains("pixel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_too_big_to_open_is_unprocessable_and_no_picture_is_an_unsupported_type() {
        let fault = |detail: &str| Fault { reason: Reason::UnsupportedFormat, detail: detail.into() };
        assert_eq!(refusal(fault("60000 x 60000 is above the pixel cap")).status(), 422);
        assert_eq!(refusal(fault("neither JPEG, PNG nor WebP")).status(), 415);
    }
}
