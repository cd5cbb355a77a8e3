//! What the tests share: a photo, services, cascades.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use providers::testing::Text;
use providers::{
    Attempt, CallError, Cascade, Credentials, Found, Limits, Now, Photo, Protocol, Sent, ServiceConfig,
};
use reading::{Jpeg, Line, Reading, Role, from_lines};
use rust_decimal::Decimal;
use schemas::events::{FrameQuality, ImageSize, Lighting};
use schemas::ids::Micros;

/// 2026-03-02 08:00:00 UTC.
pub const START: i64 = 1_772_438_400_000_000;
/// An odometer and what stands around it on a dashboard.
pub const DASHBOARD: [Text<'static>; 3] = [
    ("123456 km", [0.3, 0.4, 0.7, 0.5], 1.0),
    ("TRIP 123.4", [0.3, 0.6, 0.6, 0.65], 0.9),
    ("80 100", [0.0, 0.1, 0.2, 0.15], 0.9),
];

/// A photo on which the embedded reader reads what the test says.
pub struct TestPhoto {
    frame: FrameQuality,
    embedded: Result<Reading, CallError>,
    sent: Arc<Sent>,
}

impl TestPhoto {
    /// The embedded reader reads this value, this sure.
    pub fn read_as(value: &str, confidence: f64) -> Self {
        let quad = [[0.0, 0.0], [120.0, 0.0], [120.0, 30.0], [0.0, 30.0]];
        let line = Line { quad, text: value.to_owned(), confidence: 1.0, role: Role::Other };
        Self::new(Ok(from_lines(&[line], &frame(), confidence)))
    }

    /// The embedded reader finds nothing.
    pub fn blank() -> Self {
        Self::new(Ok(from_lines(&[], &frame(), 1.0)))
    }

    pub fn new(embedded: Result<Reading, CallError>) -> Self {
        let jpeg = Jpeg { bytes: b"a jpeg".to_vec(), size: ImageSize { width: 1_000, height: 500 } };
        let sent = Sent { jpeg, photo: ImageSize { width: 2_000, height: 1_000 } };
        Self { frame: frame(), embedded, sent: Arc::new(sent) }
    }
}

fn frame() -> FrameQuality {
    FrameQuality {
        mean: 90.0,
        p5: 10.0,
        p99: 230.0,
        tenengrad: 50.0,
        blob: 0.0,
        score: Decimal::ONE,
        lighting: Lighting::Good,
        blur: false,
        glare: false,
        grid: None,
    }
}

impl Photo for TestPhoto {
    fn frame(&self) -> &FrameQuality {
        &self.frame
    }

    async fn read(&self) -> Result<Reading, CallError> {
        self.embedded.clone()
    }

    async fn outside(&self) -> Result<Arc<Sent>, CallError> {
        Ok(self.sent.clone())
    }
}

/// A clock that moves when it is set.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START)))
    }

    pub fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    pub fn now(&self) -> Now {
        let clock = self.0.clone();
        Arc::new(move || Micros(clock.load(Ordering::SeqCst)))
    }
}

pub fn embedded() -> ServiceConfig {
    ServiceConfig {
        name: "Milestream Embedded".to_owned(),
        protocol: Protocol::Embedded,
        endpoint: "embedded:det,rec".to_owned(),
        model: Some("det@1,rec@2".to_owned()),
        priority: 1,
        threshold: Decimal::new(80, 2),
        cost: Decimal::ZERO,
        limits: Limits::default(),
        timeout: Duration::from_secs(60),
        hedge: None,
        credentials: Credentials::default(),
    }
}

/// A service that costs 0.0015 USD a call and is believed from 0.70 on.
pub fn service(protocol: Protocol, priority: i32, url: &str) -> ServiceConfig {
    ServiceConfig {
        name: match protocol {
            Protocol::GoogleVision => "Google Vision".to_owned(),
            Protocol::AwsRekognition => "AWS Rekognition".to_owned(),
            _ => "OpenAI Vision".to_owned(),
        },
        protocol,
        endpoint: url.to_owned(),
        model: (protocol == Protocol::OpenAi).then(|| "gpt-test".to_owned()),
        priority,
        threshold: Decimal::new(70, 2),
        cost: Decimal::new(15, 4),
        limits: Limits::default(),
        timeout: Duration::from_secs(10),
        hedge: None,
        credentials: Credentials {
            key: Some("AKIDEXAMPLE".into()),
            secret: Some("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
        },
    }
}

pub fn cascade(services: Vec<ServiceConfig>, clock: &TestClock) -> Cascade {
    let (cascade, left_out) = Cascade::new(services, None, clock.now());
    assert_eq!(left_out, []);
    cascade
}

/// One service alone asked about a photo: how it went, and what was chosen.
pub async fn alone(service: ServiceConfig) -> (Attempt, Option<Reading>) {
    let mut found = cascade(vec![service], &TestClock::new()).read(&TestPhoto::blank()).await.unwrap();
    assert_eq!(found.attempts.len(), 1);
    (found.attempts.remove(0), found.chosen.map(|(_, reading)| reading))
}

pub fn outcomes(found: &Found) -> Vec<(&str, &str)> {
    found.attempts.iter().map(|attempt| (attempt.service.as_str(), attempt.outcome())).collect()
}

/// Value, confidence and place of what was chosen.
pub fn chosen(found: &Found) -> (String, String, usize) {
    let (place, reading) = found.chosen.as_ref().unwrap();
    let best = reading.best.as_ref().unwrap();
    (best.value.to_string(), best.confidence.to_string(), *place)
}
