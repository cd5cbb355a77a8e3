//! The clients: what they send, what they make of answers, and of everything that is none.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use providers::testing::{self, Answer, Received, Server};
use providers::{Cascade, Protocol};
use reading::Role;
use rust_decimal::Decimal;
use schemas::events::Unit;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{DASHBOARD, TestClock, TestPhoto, alone, service};

const REMOTE: [Protocol; 3] = [Protocol::GoogleVision, Protocol::AwsRekognition, Protocol::OpenAi];

/// What a service answers with these lines.
fn answer(protocol: Protocol, lines: &[testing::Text<'_>]) -> Value {
    match protocol {
        Protocol::GoogleVision => testing::google(lines, 1_000.0, 500.0),
        Protocol::AwsRekognition => testing::rekognition(lines),
        _ => testing::openai(lines),
    }
}

/// The code of what a service's answer is worth.
async fn code(protocol: Protocol, answer: Answer) -> String {
    let server = Server::start(answer).await.unwrap();
    let (attempt, reading) = alone(service(protocol, 1, &server.url)).await;
    assert!(attempt.failure.is_none() || reading.is_none());
    attempt.outcome().to_owned()
}

#[tokio::test]
async fn every_service_answers_with_the_same_lines_and_the_same_selector_chooses() {
    for protocol in REMOTE {
        let server = Server::start(Answer::json(&answer(protocol, &DASHBOARD))).await.unwrap();
        let (attempt, reading) = alone(service(protocol, 1, &server.url)).await;
        let reading = reading.unwrap();
        let best = reading.best.unwrap();
        assert_eq!((best.value, best.unit), (Decimal::from(123_456), Some(Unit::Km)), "{protocol:?}");
        assert_eq!(best.confidence, Decimal::new(75, 2), "{protocol:?}: 1.0 is worth the ceiling");
        let line = &reading.lines[0];
        assert_eq!((line.role, line.text.as_str()), (Role::Reading, "123456 km"), "{protocol:?}");
        let corners = [[600.0, 400.0], [1_400.0, 400.0], [1_400.0, 500.0], [600.0, 500.0]];
        for (corner, wanted) in line.quad.iter().flatten().zip(corners.iter().flatten()) {
            assert!((corner - wanted).abs() < 3.0, "{protocol:?}: {:?} in the photo's pixels", line.quad);
        }
        assert_eq!(attempt.outcome(), "accepted");
        assert_eq!((attempt.cost, attempt.http_status), (Decimal::new(15, 4), Some(200)));
        assert_eq!(attempt.provider_request_id.as_deref(), Some("call-1"));
        assert_eq!(attempt.lines[1]["text"], "* 123.4", "words are masked");
        assert_eq!(attempt.lines[1]["confidence"], 0.9, "the service's own");
        let model = match protocol {
            Protocol::GoogleVision => "google_text_detection@builtin/latest",
            Protocol::AwsRekognition => "rekognition_text@3.0",
            _ => "gpt-test@gpt-test-2026-01-01",
        };
        assert_eq!(attempt.model, model);
    }
}

#[tokio::test]
async fn a_photo_without_text_is_an_answer_and_no_reading() {
    for protocol in REMOTE {
        assert_eq!(code(protocol, Answer::json(&answer(protocol, &[]))).await, "no_reading", "{protocol:?}");
    }
    // Google leaves the annotation out where it finds nothing.
    assert_eq!(code(Protocol::GoogleVision, Answer::json(&json!({"responses": [{}]}))).await, "no_reading");
}

#[tokio::test]
async fn an_answer_that_is_no_answer_is_refused_by_every_client() {
    let huge = vec![b' '; 5 << 20];
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let garbage: [&[u8]; 7] =
        [b"", b"<html><body>Bad gateway</body></html>", b"null", b"[]", b"\xFF\xFE", &huge, &deep];
    for protocol in REMOTE {
        for body in garbage {
            let outcome = code(protocol, Answer::Body(200, body.to_vec())).await;
            assert_eq!(outcome, "bad_response", "{protocol:?}: {:?}", &body[..body.len().min(20)]);
        }
        let whole = answer(protocol, &DASHBOARD).to_string();
        let cut = whole.as_bytes()[..whole.len() / 2].to_vec();
        assert_eq!(code(protocol, Answer::Body(200, cut)).await, "bad_response", "{protocol:?}");
    }
}

#[tokio::test]
async fn statuses_have_their_codes_and_a_redirect_is_not_followed() {
    for protocol in REMOTE {
        for (status, wanted) in [
            (401, "unauthorized"),
            (403, "unauthorized"),
            (429, "rate_limited"),
            (500, "http_500"),
            (503, "http_503"),
        ] {
            assert_eq!(code(protocol, Answer::Body(status, b"{}".to_vec())).await, wanted, "{protocol:?}");
        }
        let elsewhere = Server::start(Answer::json(&answer(protocol, &DASHBOARD))).await.unwrap();
        assert_eq!(code(protocol, Answer::Redirect(elsewhere.url.clone())).await, "http_307", "{protocol:?}");
        assert_eq!(elsewhere.calls(), 0, "{protocol:?}: our key goes nowhere else");
    }
}

#[tokio::test]
async fn a_service_that_never_answers_times_out_and_may_have_cost() {
    for protocol in REMOTE {
        let server = Server::start(Answer::Never).await.unwrap();
        let mut config = service(protocol, 1, &server.url);
        config.timeout = Duration::from_millis(20);
        let (attempt, _) = alone(config).await;
        assert_eq!((attempt.outcome(), attempt.cost), ("timeout", Decimal::new(15, 4)), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_costs_nothing() {
    let server = Server::start(Answer::Never).await.unwrap();
    let gone = server.url.clone();
    drop(server);
    let (attempt, _) = alone(service(Protocol::GoogleVision, 1, &gone)).await;
    let failure = attempt.failure.clone().unwrap();
    assert!(["internal", "bad_response"].contains(&failure.code.as_str()), "{failure:?}");
    assert!(!failure.message.contains("127.0.0.1"), "{failure:?}");
}

#[tokio::test]
async fn an_error_about_the_picture_inside_a_successful_answer_is_an_error() {
    for (status, wanted) in
        [(7, "unauthorized"), (16, "unauthorized"), (8, "rate_limited"), (3, "bad_response")]
    {
        let body = json!({"responses": [{"error": {"code": status, "message": "m"}}]});
        assert_eq!(code(Protocol::GoogleVision, Answer::json(&body)).await, wanted);
    }
    let choice =
        |message: Value, reason: &str| json!({"choices": [{"message": message, "finish_reason": reason}]});
    let refused = choice(json!({"content": null, "refusal": "I cannot"}), "stop");
    let filtered = choice(json!({"content": null}), "content_filter");
    let cut = choice(json!({"content": "{\"lines\":[]}"}), "length");
    let prose = choice(json!({"content": "The odometer shows 123456 km."}), "stop");
    for body in [refused, filtered, cut, prose, json!({"choices": []})] {
        assert_eq!(code(Protocol::OpenAi, Answer::json(&body)).await, "bad_response", "{body}");
    }
}

#[tokio::test]
async fn json_in_a_markdown_fence_is_read_and_a_box_that_is_none_is_not() {
    let answered = |content: &str| {
        Answer::json(&json!({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}))
    };
    let line = r#"{"lines":[{"text":"123456","box":[0.1,0.1,0.4,0.2],"confidence":0.99}]}"#;
    assert_eq!(code(Protocol::OpenAi, answered(&format!("```json\n{line}\n```"))).await, "accepted");
    for wrong in ["[0.4,0.1,0.1,0.2]", "[0.1,0.1,0.1,0.1]", "[0.1,0.1]", "\"left\"", "[7,7,8,8]"] {
        let content = line.replace("[0.1,0.1,0.4,0.2]", wrong);
        assert_eq!(code(Protocol::OpenAi, answered(&content)).await, "bad_response", "{wrong}");
    }
}

#[tokio::test]
async fn aws_errors_come_with_status_400_and_are_known_by_name() {
    for (name, wanted) in [
        ("ThrottlingException", "rate_limited"),
        ("ProvisionedThroughputExceededException", "rate_limited"),
        ("UnrecognizedClientException", "unauthorized"),
        ("ImageTooLargeException", "http_400"),
    ] {
        let body = json!({"__type": name, "Message": "m"}).to_string().into_bytes();
        assert_eq!(code(Protocol::AwsRekognition, Answer::Body(400, body)).await, wanted, "{name}");
    }
}

async fn sent(protocol: Protocol, path: &str) -> Received {
    let server = Server::start(Answer::json(&answer(protocol, &DASHBOARD))).await.unwrap();
    alone(service(protocol, 1, &format!("{}{path}", server.url))).await;
    let mut received = server.received();
    assert_eq!(received.len(), 1);
    received.remove(0)
}

#[tokio::test]
async fn google_is_sent_the_jpeg_and_the_key_in_a_header() {
    let received = sent(Protocol::GoogleVision, "v1/images:annotate").await;
    assert_eq!(
        (received.path.as_str(), received.headers["x-goog-api-key"].as_str()),
        ("/v1/images:annotate", "AKIDEXAMPLE")
    );
    let request = &received.json()["requests"][0];
    assert_eq!(request["image"]["content"], STANDARD.encode("a jpeg"));
    assert_eq!(request["features"][0]["type"], "TEXT_DETECTION");
}

#[tokio::test]
async fn a_chat_model_is_sent_the_picture_as_a_data_url_and_the_key_as_a_bearer() {
    let received = sent(Protocol::OpenAi, "v1/chat/completions").await;
    assert_eq!(received.headers["authorization"], "Bearer AKIDEXAMPLE");
    let body = received.json();
    assert_eq!((&body["model"], &body["temperature"]), (&json!("gpt-test"), &json!(0)));
    assert_eq!(body["response_format"]["type"], "json_schema");
    let url = body["messages"][0]["content"][1]["image_url"]["url"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("data:image/jpeg;base64,{}", STANDARD.encode("a jpeg")));
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// The signature that AWS would compute, step by step as its documentation of Signature Version 4 says.
fn signature(received: &Received, signed: &str, scope: &str) -> String {
    let headers: String =
        signed.split(';').map(|name| format!("{name}:{}\n", received.headers[name].trim())).collect();
    let body = hex::encode(Sha256::digest(&received.body));
    let canonical = format!("POST\n{}\n\n{headers}\n{signed}\n{body}", received.path);
    let time = &received.headers["x-amz-date"];
    let hashed = hex::encode(Sha256::digest(canonical));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashed}");
    let first = "AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".as_bytes().to_vec();
    let key = scope.split('/').fold(first, |key, part| hmac(&key, part));
    hex::encode(hmac(&key, &text))
}

#[tokio::test]
async fn aws_is_sent_a_signature_that_it_can_compute_again() {
    let received = sent(Protocol::AwsRekognition, "").await;
    assert_eq!(received.headers["x-amz-target"], "RekognitionService.DetectText");
    assert_eq!(received.headers["content-type"], "application/x-amz-json-1.1");
    assert_eq!(received.json()["Image"]["Bytes"], STANDARD.encode("a jpeg"));
    assert_eq!(received.headers["x-amz-date"], "20260302T080000Z", "the clock that was passed in");
    let scope = "20260302/us-east-1/rekognition/aws4_request";
    let authorization = received.headers["authorization"].as_str();
    let rest = authorization
        .strip_prefix(&format!("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders="))
        .unwrap_or_else(|| panic!("{authorization}"));
    let (signed, theirs) = rest.split_once(", Signature=").unwrap();
    let names: Vec<&str> = signed.split(';').collect();
    assert!(["host", "x-amz-date", "x-amz-target"].iter().all(|name| names.contains(name)), "{signed}");
    assert_eq!(theirs, signature(&received, signed, scope));
}

#[tokio::test]
async fn a_service_without_its_key_model_or_a_fit_address_is_left_out_by_name() {
    let mut keyless = service(Protocol::GoogleVision, 1, "https://vision.example/");
    keyless.credentials.key = None;
    let mut modelless = service(Protocol::OpenAi, 1, "https://chat.example/");
    modelless.model = None;
    let plain = service(Protocol::AwsRekognition, 1, "http://rekognition.eu-west-1.amazonaws.com/");
    let (cascade, left_out) = Cascade::new(vec![keyless, modelless, plain], None, TestClock::new().now());
    let reported: Vec<String> = left_out.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    assert_eq!(
        reported,
        [
            "AWS Rekognition: the address must begin with https://",
            "Google Vision: the API key is missing",
            "OpenAI Vision: the model is missing",
        ]
    );
    assert!(cascade.read(&TestPhoto::blank()).await.unwrap().chosen.is_none());
}
