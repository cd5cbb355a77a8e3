//! HEIC photos for browsers, which do not show them.

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::http::problem::{ApiError, INTERNAL};

/// One photo at a time is made a JPEG: it takes up to 200 MB and two seconds of a core.
static ROOM: Semaphore = Semaphore::const_new(1);

/// A JPEG of the same pixels, upright and without metadata.
///
/// # Errors
/// [`INTERNAL`] where a photo that was accepted can no longer be decoded, or the program is ending.
pub(crate) async fn to_jpeg(heic: Bytes) -> Result<Bytes, ApiError> {
    let room = ROOM.acquire().await.map_err(|error| INTERNAL.caused_by(error))?;
    let work = move || reading::decode(&heic).and_then(|photo| photo.to_jpeg(u32::MAX));
    let made = tokio::task::spawn_blocking(work).await.map_err(|error| INTERNAL.caused_by(error))?;
    drop(room);
    let jpeg = made.map_err(|fault| INTERNAL.caused_by(std::io::Error::other(fault.detail)))?;
    Ok(jpeg.bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phones_photo_becomes_a_jpeg_of_the_same_picture_upright() {
        let heic = include_bytes!("../../../reading/tests/phone/tiles.heic").as_slice();
        let made = to_jpeg(Bytes::from_static(heic)).await.unwrap();
        let info = reading::inspect(&made).unwrap();
        assert_eq!((info.format, info.width, info.height), (reading::Format::Jpeg, 1280, 960));
    }
}
