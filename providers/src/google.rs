//! Google Cloud Vision, `images:annotate` with `TEXT_DETECTION`: words and letters with boxes and confidence in
//! `fullTextAnnotation` (<https://cloud.google.com/vision/docs/ocr>). A line is what lies between two line breaks of a paragraph.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reading::{Line, Role};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use schemas::events::ImageSize;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use crate::call::{Answer, Request, parse, secret_header, share};
use crate::{CallError, Sent};

/// The newest model of the feature; the answer names no version.
const MODEL: &str = "google_text_detection@builtin/latest";

/// The request; the key travels in a header and never in the address.
pub(crate) fn request(sent: &Sent, key: &SecretString) -> Result<Request, CallError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    secret_header(&mut headers, "x-goog-api-key", "", key)?;
    let body = json!({"requests": [{
        "image": {"content": STANDARD.encode(&sent.jpeg.bytes)},
        "features": [{"type": "TEXT_DETECTION", "model": "builtin/latest"}],
        "imageContext": {"languageHints": ["en"]},
    }]});
    Ok(Request { headers, body: body.to_string().into_bytes() })
}

#[derive(Deserialize)]
struct Batch {
    responses: Vec<Annotated>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotated {
    full_text_annotation: Option<FullText>,
    error: Option<Status>,
}

/// `google.rpc.Status`: an error about one picture, in an answer with HTTP status 200.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: i32,
}

#[derive(Deserialize)]
struct FullText {
    #[serde(default)]
    pages: Vec<Page>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    blocks: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(default)]
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    #[serde(default)]
    words: Vec<Word>,
    #[serde(default = "certain")]
    confidence: f32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Word {
    bounding_box: Poly,
    #[serde(default)]
    symbols: Vec<Symbol>,
    confidence: Option<f32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Poly {
    #[serde(default)]
    vertices: Vec<Vertex>,
    #[serde(default)]
    normalized_vertices: Vec<Vertex>,
}

/// Zeros are left out of the JSON.
#[derive(Clone, Copy, Deserialize)]
struct Vertex {
    #[serde(default)]
    x: f32,
    #[serde(default)]
    y: f32,
}

#[derive(Deserialize)]
struct Symbol {
    text: String,
    property: Option<Property>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Property {
    detected_break: Option<Break>,
}

#[derive(Deserialize)]
struct Break {
    #[serde(rename = "type", default)]
    kind: String,
}

/// A paragraph without a confidence claims certainty, which is worth the ceiling.
fn certain() -> f32 {
    1.0
}

/// The lines of an answer. `size` is the picture that was sent, in whose pixels the boxes are.
pub(crate) fn answer(body: &[u8], size: ImageSize) -> Result<Answer, CallError> {
    let batch: Batch = parse(body)?;
    let [annotated] = <[Annotated; 1]>::try_from(batch.responses)
        .map_err(|_| CallError::BadResponse("one picture was sent, and not one answer came"))?;
    if let Some(status) = annotated.error.filter(|status| status.code != 0) {
        return Err(match status.code {
            // PERMISSION_DENIED, UNAUTHENTICATED, RESOURCE_EXHAUSTED of google.rpc.Code.
            7 | 16 => CallError::Unauthorized,
            8 => CallError::RateLimited("the service's quota is used up"),
            _ => CallError::BadResponse("the service could not read the picture"),
        });
    }
    let pages = annotated.full_text_annotation.map_or_else(Vec::new, |text| text.pages);
    let paragraphs = pages.into_iter().flat_map(|page| page.blocks).flat_map(|block| block.paragraphs);
    let mut lines = Vec::new();
    for paragraph in paragraphs {
        let mut open: Vec<Word> = Vec::new();
        for word in paragraph.words {
            let ends =
                word.gap().is_some_and(|gap| matches!(gap, "LINE_BREAK" | "EOL_SURE_SPACE" | "HYPHEN"));
            open.push(word);
            if ends {
                lines.extend(line(&open, paragraph.confidence, size)?);
                open.clear();
            }
        }
        lines.extend(line(&open, paragraph.confidence, size)?);
    }
    Ok(Answer { lines, model: MODEL.to_owned() })
}

impl Word {
    /// What stands behind its last letter.
    fn gap(&self) -> Option<&str> {
        let gap = self.symbols.last()?.property.as_ref()?.detected_break.as_ref()?;
        Some(gap.kind.as_str())
    }

    fn quad(&self, size: ImageSize) -> Result<[[f32; 2]; 4], CallError> {
        let Poly { vertices, normalized_vertices } = &self.bounding_box;
        let (points, width, height) = if vertices.is_empty() {
            (normalized_vertices, 1.0, 1.0)
        } else {
            (vertices, size.width.max(1) as f32, size.height.max(1) as f32)
        };
        let shares: Vec<_> =
            points.iter().filter_map(|vertex| share(vertex.x / width, vertex.y / height)).collect();
        shares.try_into().map_err(|_| CallError::BadResponse("a word's box has not four corners"))
    }
}

/// Words as a line: from the first one's left side to the last one's right side, as sure as its least sure word.
fn line(words: &[Word], paragraph: f32, size: ImageSize) -> Result<Option<Line>, CallError> {
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return Ok(None) };
    let (left, right) = (first.quad(size)?, last.quad(size)?);
    let mut text = String::new();
    for word in words {
        text.extend(word.symbols.iter().map(|symbol| symbol.text.as_str()));
        if word.gap().is_some_and(|gap| matches!(gap, "SPACE" | "SURE_SPACE")) {
            text.push(' ');
        }
    }
    let confidence = words.iter().map(|word| word.confidence.unwrap_or(paragraph)).fold(1.0, f32::min);
    let quad = [left[0], right[1], right[2], left[3]];
    Ok(Some(Line { quad, text: text.trim().to_owned(), confidence, role: Role::Other }))
}
