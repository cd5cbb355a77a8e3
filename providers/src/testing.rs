//! A local server that speaks the services' protocols, as documented, and does as it is told: no paid account is needed or used.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use warp::Filter as _;
use warp::http::{HeaderMap, Response};
use warp::path::FullPath;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Answers with a status and a body.
    Body(u16, Vec<u8>),
    /// Answers so once it is let.
    Held(Arc<Notify>, u16, Vec<u8>),
    /// Sends the caller elsewhere.
    Redirect(String),
    /// Never answers.
    Never,
}

impl Answer {
    /// Success with JSON.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self::Body(200, body.to_string().into_bytes())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Path.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Bytes,
}

impl Received {
    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The server; ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Its address, ending in `/`.
    pub url: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<VecDeque<Answer>>,
    usual: Mutex<Answer>,
    received: Mutex<Vec<Received>>,
    arrived: Notify,
}

impl Server {
    /// A server on this machine that answers each request so.
    ///
    /// # Errors
    /// Those of listening.
    pub async fn start(usual: Answer) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let shared = Arc::new(Shared {
            script: Mutex::default(),
            usual: Mutex::new(usual),
            received: Mutex::default(),
            arrived: Notify::new(),
        });
        let serving = shared.clone();
        let route = warp::path::full().and(warp::header::headers_cloned()).and(warp::body::bytes());
        let route = route.then(move |path: FullPath, headers: HeaderMap, body: Bytes| {
            let shared = serving.clone();
            async move { Ok::<_, Infallible>(shared.answer(path.as_str(), &headers, body).await) }
        });
        let route = route.map(|answer: Result<Response<Vec<u8>>, Infallible>| match answer {
            Ok(answer) => answer,
            Err(never) => match never {},
        });
        let task = tokio::spawn(warp::serve(route).incoming(listener).run()).abort_handle();
        Ok(Self { url, shared, task })
    }

    /// Answers the next requests so, in order, before the usual answer.
    pub fn next(&self, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.shared.script).extend(answers);
    }

    /// From now on answers so.
    pub fn usually(&self, answer: Answer) {
        *lock(&self.shared.usual) = answer;
    }

    /// Every request so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// How many requests came.
    #[must_use]
    pub fn calls(&self) -> usize {
        lock(&self.shared.received).len()
    }

    /// Waits for the next request from when this is first polled.
    pub async fn arrival(&self) {
        self.shared.arrived.notified().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    async fn answer(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Response<Vec<u8>> {
        let text = |value: &warp::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        lock(&self.received).push(Received { path: path.to_owned(), headers, body });
        self.arrived.notify_one();
        let answer = lock(&self.script).pop_front().unwrap_or_else(|| lock(&self.usual).clone());
        match answer {
            Answer::Body(status, body) => respond(status, None, body),
            Answer::Held(until, status, body) => {
                until.notified().await;
                respond(status, None, body)
            }
            Answer::Redirect(to) => respond(307, Some(&to), Vec::new()),
            Answer::Never => pending().await,
        }
    }
}

fn respond(status: u16, location: Option<&str>, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::builder().status(status).header("x-request-id", "call-1");
    if let Some(location) = location {
        response = response.header("location", location);
    }
    response.body(body).unwrap_or_default()
}

/// A line of text: the text, its box as left, top, right, bottom in shares, and the service's own confidence, 0-1.
pub type Text<'a> = (&'a str, [f64; 4], f64);

/// What Google Vision answers about a picture of this size with these lines.
#[must_use]
pub fn google(lines: &[Text<'_>], width: f64, height: f64) -> Value {
    let vertex = |x: f64, y: f64| json!({"x": (x * width).round(), "y": (y * height).round()});
    let paragraph = |(text, [left, top, right, bottom], confidence): &Text<'_>| {
        let count = text.split(' ').count();
        let step = (right - left) / count as f64;
        let word = |(index, word): (usize, &str)| {
            let (from, to) = (left + step * index as f64, left + step * (index + 1) as f64);
            let gap = if index + 1 == count { "LINE_BREAK" } else { "SPACE" };
            let last = word.chars().count().saturating_sub(1);
            let symbol = |(place, letter): (usize, char)| {
                if place == last {
                    json!({"text": letter.to_string(), "property": {"detectedBreak": {"type": gap}}})
                } else {
                    json!({"text": letter.to_string()})
                }
            };
            json!({
                "boundingBox": {"vertices": [
                    vertex(from, *top), vertex(to, *top), vertex(to, *bottom), vertex(from, *bottom)]},
                "confidence": confidence,
                "symbols": word.chars().enumerate().map(symbol).collect::<Vec<_>>(),
            })
        };
        json!({"words": text.split(' ').enumerate().map(word).collect::<Vec<_>>()})
    };
    let paragraphs: Vec<Value> = lines.iter().map(paragraph).collect();
    json!({"responses": [{"fullTextAnnotation": {
        "pages": [{"blocks": [{"blockType": "TEXT", "paragraphs": paragraphs}]}], "text": "",
    }}]})
}

/// What Amazon Rekognition answers with these lines.
#[must_use]
pub fn rekognition(lines: &[Text<'_>]) -> Value {
    let detection = |kind: &'static str| {
        move |(id, (text, [left, top, right, bottom], confidence)): (usize, &Text<'_>)| {
            json!({
                "DetectedText": text, "Type": kind, "Id": id, "Confidence": confidence * 100.0,
                "Geometry": {
                    "BoundingBox": {"Left": left, "Top": top, "Width": right - left, "Height": bottom - top},
                    "Polygon": [{"X": left, "Y": top}, {"X": right, "Y": top}, {"X": right, "Y": bottom},
                        {"X": left, "Y": bottom}],
                },
            })
        }
    };
    let mut all: Vec<Value> = lines.iter().enumerate().map(detection("LINE")).collect();
    all.extend(lines.iter().enumerate().map(detection("WORD")));
    json!({"TextDetections": all, "TextModelVersion": "3.0"})
}

/// What an OpenAI-compatible model answers with these lines.
#[must_use]
pub fn openai(lines: &[Text<'_>]) -> Value {
    let line =
        |(text, edges, confidence): &Text<'_>| json!({"text": text, "box": edges, "confidence": confidence});
    let content = json!({"lines": lines.iter().map(line).collect::<Vec<_>>()}).to_string();
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-test-2026-01-01",
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": content, "refusal": null}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
}
