//! The multipart form, streamed: the photo goes to the store as it comes, the small fields into memory under a cap.

use multer::{Field, Multipart};
use rust_decimal::Decimal;
use schemas::events::Unit;
use schemas::ids::{Micros, VehicleId};

use crate::body::Body;
use crate::config::Limits;
use crate::error::ApiError;
use crate::fields;
use crate::store::{Incoming, PhotoStore, StoreError};

/// Characters of an unknown field's name that are shown again.
const SHOWN_NAME: usize = 64;

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::PhotoStoreUnavailable { retry_after: 5, source: error.into() }
    }
}

/// The form's small fields, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) file_name: Option<String>,
    pub(crate) mileage: Option<Decimal>,
    pub(crate) unit: Option<Unit>,
    pub(crate) vehicle_id: Option<VehicleId>,
    pub(crate) captured_at: Option<Micros>,
}

/// A form's reader.
pub(crate) struct FormReader<'a> {
    pub(crate) photos: &'a PhotoStore,
    pub(crate) limits: Limits,
    pub(crate) now: Micros,
}

impl FormReader<'_> {
    /// Reads the whole form. On an error nothing stays in the store.
    pub(crate) async fn read(
        &self,
        content_type: Option<&str>,
        body: &mut Body,
    ) -> Result<(Incoming, Claims), ApiError> {
        let boundary = boundary(content_type)?;
        let (mut photo, mut claims) = (None, Claims::default());
        match self.parts(boundary, body, &mut photo, &mut claims).await {
            Ok(()) => photo.map(|photo| (photo, claims)).ok_or(ApiError::MissingField("photo")),
            Err(error) => {
                if let Some(photo) = &photo {
                    self.photos.discard(photo).await;
                }
                Err(error)
            }
        }
    }

    async fn parts(
        &self,
        boundary: String,
        body: &mut Body,
        photo: &mut Option<Incoming>,
        claims: &mut Claims,
    ) -> Result<(), ApiError> {
        let look_ahead = body.look_ahead();
        let mut form = Multipart::new(body, boundary);
        while let Some(mut field) = form.next_field().await.map_err(form_error)? {
            look_ahead.part_begun();
            let name = known(field.name())?;
            if name == "photo" {
                once(photo, name)?;
                claims.file_name = field.file_name().and_then(fields::file_name);
                *photo = Some(self.photo(&mut field).await?);
            } else {
                let text = self.text(&mut field, name).await?;
                self.claim(claims, name, &text)?;
            }
            look_ahead.part_awaited();
        }
        Ok(())
    }

    fn claim(&self, claims: &mut Claims, name: &'static str, text: &str) -> Result<(), ApiError> {
        match name {
            "claimed_mileage" => {
                once(&claims.mileage, name)?;
                claims.mileage = Some(fields::mileage(text)?);
            }
            "unit" => {
                once(&claims.unit, name)?;
                claims.unit = Some(fields::unit(text)?);
            }
            "vehicle_id" => {
                once(&claims.vehicle_id, name)?;
                claims.vehicle_id = Some(fields::vehicle_id(text)?);
            }
            _ => {
                once(&claims.captured_at, name)?;
                claims.captured_at = Some(fields::captured_at(text, self.now)?);
            }
        }
        Ok(())
    }

    async fn photo(&self, field: &mut Field<'_>) -> Result<Incoming, ApiError> {
        let mut writer = self.photos.begin().await?;
        loop {
            let chunk = match field.chunk().await {
                Ok(Some(chunk)) if writer.bytes() + chunk.len() as u64 <= self.limits.photo_bytes => chunk,
                Ok(None) if writer.bytes() > 0 => return Ok(writer.finish().await?),
                ended => {
                    writer.abort().await;
                    return Err(match ended {
                        Ok(Some(_)) => ApiError::PhotoTooLarge { limit: self.limits.photo_bytes },
                        Ok(None) => ApiError::EmptyFile,
                        Err(error) => form_error(error),
                    });
                }
            };
            writer.write(&chunk).await?;
        }
    }

    async fn text(&self, field: &mut Field<'_>, name: &'static str) -> Result<String, ApiError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(form_error)? {
            if bytes.len() + chunk.len() > self.limits.field_bytes {
                return Err(ApiError::FieldTooLong { name, limit: self.limits.field_bytes });
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes)
            .map_err(|_| ApiError::InvalidField { name, detail: "it is not UTF-8 text".into() })
    }
}

/// The fields of the form, for the OpenAPI document's test.
pub(crate) const FIELDS: [&str; 5] = ["photo", "claimed_mileage", "unit", "vehicle_id", "captured_at"];

fn known(name: Option<&str>) -> Result<&'static str, ApiError> {
    let name = name.ok_or_else(|| ApiError::MalformedForm("a part has no name".into()))?;
    let known = FIELDS.iter().find(|field| **field == name).copied();
    known.ok_or_else(|| ApiError::UnknownField(name.chars().take(SHOWN_NAME).collect()))
}

fn once<T>(slot: &Option<T>, name: &'static str) -> Result<(), ApiError> {
    if slot.is_some() { Err(ApiError::RepeatedField(name)) } else { Ok(()) }
}

fn boundary(content_type: Option<&str>) -> Result<String, ApiError> {
    multer::parse_boundary(content_type.unwrap_or_default()).map_err(|error| match error {
        multer::Error::NoBoundary => ApiError::MalformedForm("Content-Type has no boundary".into()),
        _ => ApiError::UnsupportedMediaType,
    })
}

/// multer's error as ours. Its own words name no values of the body but field names, which are cut.
fn form_error(error: multer::Error) -> ApiError {
    use multer::Error::{IncompleteFieldData, IncompleteHeaders, IncompleteStream, StreamReadFailed};
    match error {
        StreamReadFailed(cause) => match cause.downcast::<ApiError>() {
            Ok(ours) => *ours,
            Err(_) => ApiError::IncompleteBody,
        },
        IncompleteStream | IncompleteFieldData { .. } | IncompleteHeaders => ApiError::IncompleteBody,
        other => ApiError::MalformedForm(other.to_string().chars().take(200).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timeouts;
    use bytes::Bytes;

    const NOW: Micros = Micros(1_770_000_000_000_000);

    fn part(name: &str, extra: &str, value: &str) -> String {
        format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"{extra}\r\n\r\n{value}\r\n")
    }

    async fn read(form: String) -> (Result<(Incoming, Claims), ApiError>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let photos = PhotoStore::open(url.as_str(), false, []).unwrap();
        let roomy = Limits::default();
        let limits = Limits { photo_bytes: 64, ..roomy };
        let chunks: Vec<Result<Bytes, warp::Error>> =
            form.into_bytes().chunks(7).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let mut body = Body::new(futures::stream::iter(chunks), &roomy, &Timeouts::default());
        let reader = FormReader { photos: &photos, limits, now: NOW };
        (reader.read(Some("multipart/form-data; boundary=B"), &mut body).await, folder)
    }

    async fn code(form: String) -> &'static str {
        let (read, folder) = read(form).await;
        let error = read.unwrap_err();
        let left = std::fs::read_dir(folder.path().join("incoming")).unwrap().count();
        assert_eq!(left, 0, "nothing stays in the store after {error}");
        error.answer().1
    }

    #[tokio::test]
    async fn a_whole_form_gives_the_photo_and_its_claims() {
        let form = part("photo", "; filename=\"a/b.jpg\"", "PHOTO")
            + &part("claimed_mileage", "", "12345.6")
            + &part("unit", "", "miles")
            + "--B--\r\n";
        let (photo, claims) = read(form).await.0.unwrap();
        assert_eq!((photo.bytes, claims.file_name.as_deref()), (5, Some("b.jpg")));
        assert_eq!((claims.mileage, claims.unit), (Some(Decimal::new(123_456, 1)), Some(Unit::Miles)));
    }

    #[tokio::test]
    async fn each_fault_of_a_form_has_its_code_and_leaves_nothing_behind() {
        let end = "--B--\r\n";
        let photo = part("photo", "; filename=\"a.jpg\"", "PHOTO");
        assert_eq!(code(part("unit", "", "km") + end).await, "missing_field");
        assert_eq!(code(photo.clone() + &part("color", "", "red") + end).await, "unknown_field");
        assert_eq!(code(photo.clone() + &photo + end).await, "repeated_field");
        assert_eq!(code(photo.clone() + &part("unit", "", &"k".repeat(1025)) + end).await, "field_too_long");
        assert_eq!(code(photo.clone() + &part("unit", "", "yards") + end).await, "invalid_field");
        assert_eq!(code(part("photo", "", "") + end).await, "empty_file");
        assert_eq!(code(part("photo", "", &"x".repeat(65)) + end).await, "photo_too_large");
        assert_eq!(code(photo).await, "incomplete_body");
    }

    #[tokio::test]
    async fn a_part_header_without_an_end_is_cut_long_before_the_bodys_cap() {
        let form = format!("--B\r\ncontent-disposition: {}", "x".repeat(2 * 1024 * 1024));
        assert_eq!(code(form).await, "malformed_form");
    }

    #[test]
    fn a_body_that_is_no_multipart_form_is_an_unsupported_media_type() {
        assert_eq!(boundary(Some("application/json")).unwrap_err().answer().0, 415);
        assert_eq!(boundary(None).unwrap_err().answer().0, 415);
        assert_eq!(boundary(Some("multipart/form-data")).unwrap_err().answer().1, "malformed_form");
    }
}
