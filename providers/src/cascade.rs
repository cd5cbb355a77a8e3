//! The cascade: reading services are called in order until one answers at its threshold.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use reading::{Line, Reading, from_lines};
use rust_decimal::Decimal;
use schemas::events::{Candidate, Fault, FrameQuality, ImageSize};
use schemas::ids::Micros;
use sha2::{Digest as _, Sha256};

use crate::call::{Call, Sent};
use crate::config::{ConfigError, Protocol, ServiceConfig};
use crate::guard::Guard;
use crate::remote::Remote;
use crate::trust::{self, AGREES_FROM};
use crate::{Attempt, CallError, Failure};

/// Gives the time.
pub type Now = Arc<dyn Fn() -> Micros + Send + Sync>;

/// A photo as the cascade needs it.
pub trait Photo: Send + Sync {
    /// Quality of the whole frame.
    fn frame(&self) -> &FrameQuality;

    /// What the embedded reader reads on it.
    ///
    /// # Errors
    /// [`CallError::Photo`] where it cannot be decoded, [`CallError::Internal`] where reading fails.
    fn read(&self) -> impl Future<Output = Result<Reading, CallError>> + Send;

    /// It as a service outside is sent it; made once.
    ///
    /// # Errors
    /// As [`Photo::read`].
    fn outside(&self) -> impl Future<Output = Result<Arc<Sent>, CallError>> + Send;
}

/// What came of a photo.
#[derive(Debug)]
pub struct Found {
    /// Every service that was tried, in the order in which they were asked; at least one.
    pub attempts: Vec<Attempt>,
    /// The chosen one's place among them and its reading, with the candidates that only others saw behind its own. None where
    /// every service failed.
    pub chosen: Option<(usize, Reading)>,
}

/// One service with what is remembered of it.
struct Service {
    config: ServiceConfig,
    /// None for the embedded reader.
    remote: Option<Remote>,
    guard: Arc<Guard>,
}

/// The services in order.
pub struct Cascade {
    services: Vec<Service>,
    id: String,
    fingerprint: [u8; 32],
    now: Now,
}

/// A service that was tried, and what it read.
struct Tried {
    attempt: Attempt,
    protocol: Protocol,
    reading: Option<Reading>,
    /// Why no service can help.
    fault: Option<Fault>,
}

impl Cascade {
    /// A cascade of these services, by priority and name. One that cannot be asked is left out and reported. Breakers and budgets go
    /// on from those of `before`, where service and address are the same.
    #[must_use]
    pub fn new(
        configs: Vec<ServiceConfig>,
        before: Option<&Self>,
        now: Now,
    ) -> (Self, Vec<(String, ConfigError)>) {
        let configs = in_order(configs);
        let fingerprint = fingerprint(&configs);
        let known = |config: &ServiceConfig| {
            let same = |known: &&Service| {
                known.config.name == config.name && known.config.endpoint == config.endpoint
            };
            before?.services.iter().find(same).map(|known| known.guard.clone())
        };
        let (mut services, mut left_out) = (Vec::new(), Vec::new());
        let http = Remote::client();
        for config in configs {
            let remote = match config.protocol {
                Protocol::Embedded => Ok(None),
                _ => http.clone().and_then(|http| Remote::new(&config, http)).map(Some),
            };
            match remote {
                Ok(remote) => {
                    let guard = known(&config).unwrap_or_default();
                    services.push(Service { config, remote, guard });
                }
                Err(error) => left_out.push((config.name, error)),
            }
        }
        (Self { id: id(&services), services, fingerprint, now }, left_out)
    }

    /// Whether these are the very services of this cascade, keys included.
    #[must_use]
    pub fn is_of(&self, configs: &[ServiceConfig]) -> bool {
        self.fingerprint == fingerprint(&in_order(configs.to_vec()))
    }

    /// Names the cascade in the key of kept answers: 16 hex digits of what an answer depends on (names, protocols, addresses, models,
    /// thresholds, in order); empty for the embedded reader alone, whose version is in the key beside it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Asks one service after the other until one answers at its threshold; the surest answer otherwise. Where a service takes
    /// longer than its hedge delay, the next is asked as well.
    ///
    /// # Errors
    /// The fault of a photo that cannot be decoded: no service is asked about it.
    pub async fn read<P: Photo>(&self, photo: &P) -> Result<Found, Fault> {
        let mut tried: Vec<Option<Tried>> = Vec::new();
        let mut begun: Vec<(&Service, bool, Micros)> = Vec::new();
        let mut running = FuturesUnordered::new();
        let mut waiting = self.services.iter();
        // Whether to ask the next service, whether because of a delay, and whether there was one at all.
        let (mut ask, mut hedged, mut late) = (true, false, false);
        loop {
            if ask && let Some(service) = waiting.next() {
                let (place, started) = (tried.len(), (self.now)());
                tried.push(None);
                begun.push((service, hedged, started));
                let now = &self.now;
                running.push(async move { (place, service.attempt(photo, hedged, started, now).await) });
            }
            let hedge = begun.last().and_then(|(service, ..)| service.config.hedge);
            let hedge = hedge.filter(|_| !late && waiting.len() > 0);
            let ended = tokio::select! {
                ended = running.next() => ended,
                () = after(hedge) => {
                    (ask, hedged, late) = (true, true, true);
                    continue;
                }
            };
            let Some((place, ended)) = ended else { break };
            if let Some(fault) = ended.fault {
                return Err(fault);
            }
            tried[place] = Some(ended);
            if accepted(&tried).is_some() {
                break;
            }
            (ask, hedged) = (late || running.is_empty(), false);
        }
        let now = (self.now)();
        let tried = tried.into_iter().zip(begun);
        let tried = tried.map(|(tried, (service, hedged, started))| {
            tried.unwrap_or_else(|| service.abandoned(hedged, started.milliseconds_to(now)))
        });
        Ok(chosen(tried.map(Some).collect()))
    }
}

/// In the order in which they are asked: by priority, ties by name.
fn in_order(mut configs: Vec<ServiceConfig>) -> Vec<ServiceConfig> {
    configs.sort_by(|a, b| a.priority.cmp(&b.priority).then_with(|| a.name.cmp(&b.name)));
    configs
}

fn fingerprint(configs: &[ServiceConfig]) -> [u8; 32] {
    Sha256::digest(configs.iter().map(ServiceConfig::fingerprint).collect::<Vec<_>>().concat()).into()
}

fn id(services: &[Service]) -> String {
    if services.iter().all(|service| service.remote.is_none()) {
        return String::new();
    }
    let identities: String = services.iter().map(|service| service.config.identity() + "\n").collect();
    hex::encode(&Sha256::digest(identities)[..8])
}

/// Ends after a time, or never.
async fn after(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => pending().await,
    }
}

impl Service {
    /// An attempt with nothing reported yet.
    fn begun(&self, hedged: bool) -> Attempt {
        let config = &self.config;
        Attempt {
            service: config.name.clone(),
            endpoint: config.endpoint.clone(),
            model: config.model.clone().unwrap_or_else(|| config.protocol.label().to_owned()),
            threshold: config.threshold,
            spent_ms: 0.0,
            cost: Decimal::ZERO,
            breaker: self.guard.breaker().to_owned(),
            hedged,
            http_status: None,
            provider_request_id: None,
            failure: None,
            candidates: Vec::new(),
            several: false,
            lines: Vec::new(),
        }
    }

    fn failed(&self, mut attempt: Attempt, error: &CallError) -> Tried {
        attempt.failure = Some(Failure::from(error));
        if self.remote.is_some() && error.may_cost() {
            attempt.cost = self.config.cost;
        }
        let fault = if let CallError::Photo(fault) = error { Some(fault.clone()) } else { None };
        Tried { attempt, protocol: self.config.protocol, reading: None, fault }
    }

    /// A call that nobody waits for any more: the service may charge for it.
    fn abandoned(&self, hedged: bool, spent_ms: f64) -> Tried {
        let mut tried = self.failed(self.begun(hedged), &CallError::Abandoned);
        tried.attempt.spent_ms = spent_ms;
        tried
    }

    fn answered(&self, mut attempt: Attempt, reading: Reading) -> Tried {
        attempt.candidates.clone_from(&reading.candidates);
        attempt.several = reading.several;
        attempt.lines = reading.boxes();
        Tried { attempt, protocol: self.config.protocol, reading: Some(reading), fault: None }
    }

    async fn attempt<P: Photo>(&self, photo: &P, hedged: bool, started: Micros, now: &Now) -> Tried {
        let mut tried = match &self.remote {
            None => match photo.read().await {
                Ok(reading) => self.answered(self.begun(hedged), reading),
                Err(error) => self.failed(self.begun(hedged), &error),
            },
            Some(remote) => self.ask(remote, photo, hedged, now).await,
        };
        tried.attempt.spent_ms = started.milliseconds_to(now());
        tried
    }

    /// One call of an external service, if breaker and budget allow it.
    async fn ask<P: Photo>(&self, remote: &Remote, photo: &P, hedged: bool, now: &Now) -> Tried {
        let permit = self.guard.admit(&self.config.limits, now());
        // Behind the permit, which may have half opened the breaker that the attempt names.
        let mut attempt = self.begun(hedged);
        let permit = match permit {
            Ok(permit) => permit,
            Err(error) => return self.failed(attempt, &error),
        };
        let sent = match photo.outside().await {
            Ok(sent) => sent,
            Err(error) => return self.failed(attempt, &error),
        };
        let call = tokio::time::timeout(self.config.timeout, remote.call(&sent, now())).await;
        let call = call.unwrap_or(Call {
            http_status: None,
            request_id: None,
            answer: Err(CallError::Timeout(self.config.timeout.as_millis())),
        });
        attempt.http_status = call.http_status;
        attempt.provider_request_id = call.request_id;
        match call.answer {
            Ok(answer) => {
                permit.succeeded();
                attempt.model = answer.model;
                attempt.cost = self.config.cost;
                let lines: Vec<Line> =
                    answer.lines.into_iter().map(|line| in_pixels(line, sent.photo)).collect();
                self.answered(attempt, from_lines(&lines, photo.frame(), trust::CEILING_SHARE))
            }
            Err(error) => {
                if error.blames_service() {
                    permit.failed(now());
                }
                self.failed(attempt, &error)
            }
        }
    }
}

/// A line whose quad is in shares, in the photo's pixels.
fn in_pixels(mut line: Line, photo: ImageSize) -> Line {
    line.quad = line.quad.map(|[x, y]| [x * photo.width as f32, y * photo.height as f32]);
    line
}

/// How sure the best candidate of a service is, by itself and by what the others say.
fn sure(tried: &[Option<Tried>], place: usize) -> Option<Decimal> {
    let this = tried.get(place)?.as_ref()?;
    let best = this.reading.as_ref()?.best.as_ref()?;
    let agrees = |other: &Tried| {
        let same = |theirs: &Candidate| {
            let units = theirs.unit.zip(best.unit);
            theirs.value == best.value
                && theirs.confidence >= AGREES_FROM
                && units.is_none_or(|(theirs, ours)| theirs == ours)
        };
        other.protocol != this.protocol
            && other.reading.as_ref().and_then(|reading| reading.best.as_ref()).is_some_and(same)
    };
    let agreed = this.protocol != Protocol::Embedded && tried.iter().flatten().any(agrees);
    Some(if agreed { trust::raised(best.confidence) } else { best.confidence })
}

/// The first service whose reading is at its threshold.
fn accepted(tried: &[Option<Tried>]) -> Option<usize> {
    (0..tried.len()).find(|place| {
        let threshold = tried[*place].as_ref().map(|tried| tried.attempt.threshold);
        sure(tried, *place).zip(threshold).is_some_and(|(sure, threshold)| sure >= threshold)
    })
}

/// The accepted reading, else the surest, else the first that found nothing; joined with what the others saw.
fn chosen(mut tried: Vec<Option<Tried>>) -> Found {
    let sures: Vec<Option<Decimal>> = (0..tried.len()).map(|place| sure(&tried, place)).collect();
    let has_reading = |place: &usize| tried[*place].as_ref().is_some_and(|tried| tried.reading.is_some());
    // Of equals the first: it was asked first for a reason.
    let surest = (0..tried.len()).filter(has_reading).rev().max_by_key(|place| sures[*place]);
    let Some(place) = accepted(&tried).or(surest) else {
        return Found { attempts: attempts(tried), chosen: None };
    };
    let Some(mut reading) = tried[place].as_mut().and_then(|tried| tried.reading.take()) else {
        return Found { attempts: attempts(tried), chosen: None };
    };
    if let Some(sure) = sures[place] {
        reading.set_confidence(sure);
    }
    for other in tried.iter().flatten().filter_map(|tried| tried.reading.as_ref()) {
        reading.join(other);
    }
    let mut attempts = attempts(tried);
    if let (Some(first), Some(best)) = (attempts[place].candidates.first_mut(), &reading.best) {
        first.confidence = best.confidence;
    }
    Found { attempts, chosen: Some((place, reading)) }
}

fn attempts(tried: Vec<Option<Tried>>) -> Vec<Attempt> {
    tried.into_iter().flatten().map(|tried| tried.attempt).collect()
}
