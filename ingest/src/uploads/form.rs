//! The multipart form, streamed into memory under caps: the photo is hashed as it comes.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use multer::{Field, Multipart};
use rust_decimal::Decimal;
use schemas::events::Unit;
use schemas::ids::{Micros, VehicleId};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;
use warp::http::header::{CONTENT_DISPOSITION, HeaderValue};

use super::disposition::Disposition;
use super::fields;
use crate::config::Limits;
use crate::http::body::Body;
use crate::http::problem::{
    ApiError, EMPTY_FILE, FIELD_TOO_LONG, INCOMPLETE_BODY, MALFORMED_FORM, MISSING_FIELD, PHOTO_TOO_LARGE,
    REPEATED_FIELD, UNKNOWN_FIELD, UNSUPPORTED_MEDIA_TYPE,
};
use crate::http::request::SHOWN_NAME;

/// The form's small fields, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FormFields {
    pub(crate) file_name: Option<String>,
    pub(crate) mileage: Option<Decimal>,
    pub(crate) unit: Option<Unit>,
    pub(crate) vehicle_id: Option<VehicleId>,
    pub(crate) captured_at: Option<Micros>,
}

/// The form, as the OpenAPI document describes it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read field by field as it streams; this is its description")]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadForm {
    /// JPEG, PNG, WebP or HEIC
    #[schema(value_type = String, format = Binary)]
    photo: (),
    #[schema(pattern = "^[0-9]{1,7}(\\.[0-9]{1,2})?$", required = false)]
    claimed_mileage: String,
    #[schema(pattern = "^(km|miles)$", required = false)]
    unit: String,
    /// A vehicle of yours, which was added before; where /v1/about says that it need not be, the first use of a random (v4) or time-ordered
    /// (v7) id adds it. None: your default vehicle
    #[schema(required = false)]
    vehicle_id: Uuid,
    /// At most 5 minutes in the future
    #[schema(required = false)]
    captured_at: DateTime<Utc>,
}

/// A photo as it came.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) bytes: Bytes,
    /// SHA-256, 64 lower-case hex digits.
    pub(crate) sha256: String,
}

/// A form's reader.
pub(crate) struct FormReader {
    pub(crate) limits: Limits,
    /// Bytes that the body is said to have; 0 where nothing is said.
    pub(crate) announced: u64,
    pub(crate) now: Micros,
}

impl FormReader {
    /// Reads the whole form.
    pub(crate) async fn read(
        &self,
        content_type: Option<&str>,
        body: &mut Body,
    ) -> Result<(Incoming, FormFields), ApiError> {
        let boundary = boundary(content_type)?;
        let (mut photo, mut form) = (None, FormFields::default());
        self.all(boundary, body, &mut photo, &mut form).await?;
        photo
            .map(|photo| (photo, form))
            .ok_or_else(|| MISSING_FIELD.because("the field photo is missing").field("photo"))
    }

    async fn all(
        &self,
        boundary: String,
        body: &mut Body,
        photo: &mut Option<Incoming>,
        form: &mut FormFields,
    ) -> Result<(), ApiError> {
        let look_ahead = body.look_ahead();
        let mut multipart = Multipart::new(body, boundary);
        while let Some(mut field) = multipart.next_field().await.map_err(form_error)? {
            look_ahead.field_begun();
            let disposition = field.headers().get(CONTENT_DISPOSITION).map(HeaderValue::as_bytes);
            let Disposition { name, file_name } = Disposition::parse(disposition.unwrap_or_default());
            let name = known(name.as_deref())?;
            if name == "photo" {
                once(photo, name)?;
                form.file_name = file_name.as_deref().and_then(fields::file_name);
                *photo = Some(self.photo(&mut field).await?);
            } else {
                let text = self.text(&mut field, name).await?;
                self.small(form, name, &text)?;
            }
            look_ahead.field_awaited();
        }
        Ok(())
    }

    fn small(&self, form: &mut FormFields, name: &'static str, text: &str) -> Result<(), ApiError> {
        match name {
            "claimed_mileage" => {
                once(&form.mileage, name)?;
                form.mileage = Some(fields::mileage(text)?);
            }
            "unit" => {
                once(&form.unit, name)?;
                form.unit = Some(fields::unit(text)?);
            }
            "vehicle_id" => {
                once(&form.vehicle_id, name)?;
                form.vehicle_id = Some(fields::vehicle_id(text)?);
            }
            _ => {
                once(&form.captured_at, name)?;
                form.captured_at = Some(fields::captured_at(text, self.now)?);
            }
        }
        Ok(())
    }

    async fn photo(&self, field: &mut Field<'_>) -> Result<Incoming, ApiError> {
        let most = usize::try_from(self.announced.min(self.limits.photo_bytes)).unwrap_or_default();
        let (mut bytes, mut hasher) = (Vec::with_capacity(most), Sha256::new());
        while let Some(chunk) = field.chunk().await.map_err(form_error)? {
            if (bytes.len() + chunk.len()) as u64 > self.limits.photo_bytes {
                return Err(photo_too_large(self.limits.photo_bytes));
            }
            hasher.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
        if bytes.is_empty() {
            return Err(EMPTY_FILE.error().field("photo"));
        }
        Ok(Incoming { bytes: bytes.into(), sha256: hex::encode(hasher.finalize()) })
    }

    async fn text(&self, field: &mut Field<'_>, name: &'static str) -> Result<String, ApiError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(form_error)? {
            if bytes.len() + chunk.len() > self.limits.field_bytes {
                let limit = self.limits.field_bytes;
                let detail = format!("the field {name} may have at most {limit} bytes");
                return Err(FIELD_TOO_LONG.because(detail).field(name));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| fields::invalid(name, "it is not UTF-8 text"))
    }
}

/// The refusal of a photo of more than `limit` bytes.
pub(crate) fn photo_too_large(limit: u64) -> ApiError {
    PHOTO_TOO_LARGE.because(format!("a photo may have at most {limit} bytes")).field("photo")
}

/// The fields of the form.
const FIELDS: [&str; 5] = ["photo", "claimed_mileage", "unit", "vehicle_id", "captured_at"];

fn known(name: Option<&str>) -> Result<&'static str, ApiError> {
    let name = name.ok_or_else(|| malformed("a field has no name"))?;
    let known = FIELDS.iter().find(|field| **field == name).copied();
    known.ok_or_else(|| {
        let shown: String = name.chars().take(SHOWN_NAME).collect();
        UNKNOWN_FIELD.because(format!("the form has no field {shown:?}")).field(shown)
    })
}

fn malformed(detail: &str) -> ApiError {
    MALFORMED_FORM.because(format!("the body is not a well-formed multipart form: {detail}"))
}

fn once<T>(slot: &Option<T>, name: &'static str) -> Result<(), ApiError> {
    match slot {
        Some(_) => {
            Err(REPEATED_FIELD.because(format!("the field {name} is there more than once")).field(name))
        }
        None => Ok(()),
    }
}

fn boundary(content_type: Option<&str>) -> Result<String, ApiError> {
    multer::parse_boundary(content_type.unwrap_or_default()).map_err(|error| match error {
        multer::Error::NoBoundary => malformed("Content-Type has no boundary"),
        _ => UNSUPPORTED_MEDIA_TYPE.error(),
    })
}

/// multer's error as ours. Its own words name no values of the body but field names, which are cut.
fn form_error(error: multer::Error) -> ApiError {
    use multer::Error::{IncompleteFieldData, IncompleteHeaders, IncompleteStream, StreamReadFailed};
    match error {
        StreamReadFailed(cause) => match cause.downcast::<ApiError>() {
            Ok(ours) => *ours,
            Err(_) => INCOMPLETE_BODY.error(),
        },
        IncompleteStream | IncompleteFieldData { .. } | IncompleteHeaders => INCOMPLETE_BODY.error(),
        other => malformed(&other.to_string().chars().take(200).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timeouts;

    const NOW: Micros = Micros(1_770_000_000_000_000);

    fn field(name: &str, extra: &str, value: &str) -> String {
        format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"{extra}\r\n\r\n{value}\r\n")
    }

    async fn read(sent: String) -> Result<(Incoming, FormFields), ApiError> {
        let roomy = Limits::default();
        let limits = Limits { photo_bytes: 64, ..roomy };
        let chunks: Vec<Result<Bytes, warp::Error>> =
            sent.into_bytes().chunks(7).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let mut body = Body::new(futures::stream::iter(chunks), &Timeouts::default());
        body.allow(roomy.photo_bytes + roomy.form_overhead_bytes, move || photo_too_large(roomy.photo_bytes));
        let reader = FormReader { limits, announced: 0, now: NOW };
        reader.read(Some("multipart/form-data; boundary=B"), &mut body).await
    }

    async fn code(sent: String) -> &'static str {
        read(sent).await.unwrap_err().code()
    }

    #[tokio::test]
    async fn a_whole_form_gives_the_photo_and_its_claims() {
        let form = field("photo", "; filename=\"a/b.jpg\"", "PHOTO")
            + &field("claimed_mileage", "", "12345.6")
            + &field("unit", "", "miles")
            + "--B--\r\n";
        let (photo, form) = read(form).await.unwrap();
        assert_eq!((photo.bytes.as_ref(), form.file_name.as_deref()), (b"PHOTO".as_slice(), Some("b.jpg")));
        assert_eq!((form.mileage, form.unit), (Some(Decimal::new(123_456, 1)), Some(Unit::Miles)));
    }

    #[tokio::test]
    async fn each_fault_of_a_form_has_its_code() {
        let end = "--B--\r\n";
        let photo = field("photo", "; filename=\"a.jpg\"", "PHOTO");
        assert_eq!(code(field("unit", "", "km") + end).await, "missing_field");
        assert_eq!(code(photo.clone() + &field("color", "", "red") + end).await, "unknown_field");
        assert_eq!(code(photo.clone() + &photo + end).await, "repeated_field");
        assert_eq!(code(photo.clone() + &field("unit", "", &"k".repeat(1025)) + end).await, "field_too_long");
        assert_eq!(code(photo.clone() + &field("unit", "", "yards") + end).await, "invalid_field");
        assert_eq!(code(field("photo", "", "") + end).await, "empty_file");
        assert_eq!(code(field("photo", "", &"x".repeat(65)) + end).await, "photo_too_large");
        assert_eq!(code(photo).await, "incomplete_body");
    }

    #[tokio::test]
    async fn a_fields_header_without_an_end_is_cut_long_before_the_bodys_cap() {
        let form = format!("--B\r\ncontent-disposition: {}", "x".repeat(2 * 1024 * 1024));
        assert_eq!(code(form).await, "malformed_form");
    }

    #[test]
    fn a_body_that_is_no_multipart_form_is_an_unsupported_media_type() {
        assert_eq!(boundary(Some("application/json")).unwrap_err().status(), 415);
        assert_eq!(boundary(None).unwrap_err().status(), 415);
        assert_eq!(boundary(Some("multipart/form-data")).unwrap_err().code(), "malformed_form");
    }
}
