//! Which photos were read before: the same pixels in another file, and copies that were cropped or made anew. What is found about an
//! upload is stored with it: a redelivery finds the same, whatever was read since.

use std::future::Future;

use reading::Surroundings;
use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::{LookAlike, PixelHolder, UploadHeader};

/// Knows the photos that were read before.
pub trait Pictures: Send + Sync + 'static {
    /// The first upload with these pixels, for good, where it sent them in another file: none where this one is the first, or the first
    /// sent the same file. Of one file acceptance knows who was first, in whichever order the two are read.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond.
    fn hold_pixels(
        &self,
        pixel_hash: &str,
        own: &UploadHeader,
    ) -> impl Future<Output = Result<Option<PixelHolder>, StageError>> + Send;

    /// The photo of another vehicle, in another file, that shows this number in surroundings most like these; none where no copy is known.
    /// It is remembered with the upload, for good.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond.
    fn look_alike(
        &self,
        own: &UploadHeader,
        mileage: Decimal,
        surroundings: Surroundings,
    ) -> impl Future<Output = Result<Option<LookAlike>, StageError>> + Send;
}
