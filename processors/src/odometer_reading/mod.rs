//! `odometer_reading`: reads the mileage with the embedded reader. The answer is kept under photo and reader before it is
//! published: a redelivery reads it back and reads no photo again. Knows nothing of earlier readings.

mod answers;
mod documents;
mod measured;

use std::sync::Arc;

use reading::{AUTO_ACCEPT, Reader, Reading};
use runtime::{Clock, Envelope, Processor, StageError, Verdict};
use rust_decimal::Decimal;
use schemas::events::{
    AttemptOutcome, Fault, OdometerRead, ReadingAttempt, ReadingResult, Root, UploadGraded,
};
use schemas::ids::UserId;
use schemas::reason::Reason;
use schemas::sealed::Sealed;

pub use self::answers::{Answer, Answers, PostgresAnswers};
use self::documents::Told;
use self::measured::{Spent, measured};
use crate::documents::milliseconds;
use crate::parts::{Parts, SERVICE};
use crate::photos::{Photos, processing_failed};
use crate::workers::Workers;

/// Reads odometers; `A` keeps the answers.
pub struct OdometerReading<A> {
    answers: A,
    reader: Arc<Reader>,
    photos: Photos,
    workers: Workers,
    clock: Arc<dyn Clock>,
    rules_version: &'static str,
}

/// What is passed on: the answer, or the fault in its place.
type Outcome = Result<Answer, Fault>;

impl<A: Answers> OdometerReading<A> {
    /// A stage on these parts, with the models loaded.
    ///
    /// # Errors
    /// [`reading::ReaderError`] when the models do not load.
    pub async fn new(parts: &Parts, answers: A) -> Result<Self, reading::ReaderError> {
        Ok(Self {
            answers,
            reader: parts.reader().await?,
            photos: parts.photos.clone(),
            workers: parts.workers.clone(),
            clock: parts.clock.clone(),
            rules_version: parts.rules.version,
        })
    }

    async fn outcome(&self, graded: &UploadGraded) -> Result<Outcome, StageError> {
        let header = &graded.header;
        if let Some(fault) = &graded.fault {
            return Ok(Err(fault.clone()));
        }
        if let Some(kept) = self.answers.find(&header.image_hash, self.reader.version()).await? {
            return Ok(Ok(self.for_upload(kept, graded).await?));
        }
        match self.read(graded).await? {
            Ok(answer) => {
                let kept = self.answers.keep(&header.image_hash, self.reader.version(), answer).await?;
                Ok(Ok(self.for_upload(kept, graded).await?))
            }
            Err(fault) => Ok(Err(fault)),
        }
    }

    async fn read(&self, graded: &UploadGraded) -> Result<Outcome, StageError> {
        let started = self.clock.now();
        let Some(frame) = graded.quality.clone() else {
            return Ok(Err(processing_failed("the photo was passed on unmeasured")));
        };
        let bytes = match self.photos.fetch(&graded.header).await? {
            Ok(bytes) => bytes,
            Err(fault) => return Ok(Err(fault)),
        };
        let (reader, clock) = (self.reader.clone(), self.clock.clone());
        let read = move || {
            let photo = reading::decode(&bytes)?;
            let (reading, spent) = measured(clock.as_ref(), || reader.read(&photo, &frame));
            Ok((photo.info(), photo.size(), reading, spent))
        };
        let (file, size, reading, spent) = match self.workers.run(read).await? {
            Ok(Ok(read)) => read,
            Ok(Err(fault)) => return Ok(Err(fault)),
            Err(_) => return Ok(Err(processing_failed("reading the photo failed"))),
        };
        let header = &graded.header;
        let text = Some(reading.text()).filter(|text| !text.is_empty());
        let detected_text = match text {
            Some(text) => self.seal(header.user_id, graded, &text).await?,
            None => None,
        };
        let spent_ms = milliseconds(started, self.clock.now());
        let result = ReadingResult {
            service: SERVICE.to_owned(),
            reader_version: self.reader.version().to_owned(),
            processing_time_ms: whole(spent_ms),
            best: reading.best.clone(),
            candidates: reading.candidates.clone(),
            several_readings: reading.several,
            fallback_used: false,
            detected_text,
            bounding_boxes: reading.bounding_boxes_json(size),
            quality_score: reading.quality_score,
            lighting: reading.lighting,
            blur: reading.blur,
            glare: reading.glare,
            attempts: vec![self.attempt(&reading, spent)],
        };
        Ok(Ok(Answer::new(header, result, &reading, (file, size), spent_ms)))
    }

    /// The embedded reader's try. It costs nothing but our own machine.
    fn attempt(&self, reading: &Reading, spent: Spent) -> ReadingAttempt {
        let confidence = reading.best.as_ref().map(|best| best.confidence);
        let outcome = match confidence {
            None => AttemptOutcome::NoReading,
            Some(confidence) if confidence < AUTO_ACCEPT => AttemptOutcome::LowConfidence,
            Some(_) => AttemptOutcome::Success,
        };
        ReadingAttempt {
            service: SERVICE.to_owned(),
            reader_version: self.reader.version().to_owned(),
            outcome,
            http_status: None,
            processing_time_ms: whole(spent.wall_ms),
            cpu_ms: spent.cpu_ms,
            rss_mb: spent.rss_mb,
            cost_usd: Decimal::ZERO,
            confidence,
            several_readings: reading.several,
        }
    }

    /// Seals with the user's key; without a key (the user was erased) the text is lost, as it should be.
    async fn seal(
        &self,
        user: UserId,
        graded: &UploadGraded,
        text: &str,
    ) -> Result<Option<Sealed>, StageError> {
        let Some(key) = self.answers.user_key(user).await? else { return Ok(None) };
        let sealed = key.seal(graded.header.upload_id, text);
        Ok(Some(sealed.map_err(|error| StageError::new("detected text", error))?))
    }

    /// The kept answer for this upload. One of another upload of the same photo is sealed anew, since a sealed text
    /// opens only with its upload and its user's key; no service was tried for this one.
    async fn for_upload(&self, mut answer: Answer, graded: &UploadGraded) -> Result<Answer, StageError> {
        let header = &graded.header;
        if answer.upload_id == header.upload_id {
            return Ok(answer);
        }
        let text = match (&answer.result.detected_text, self.answers.user_key(answer.user_id).await?) {
            (Some(sealed), Some(key)) => key.open(answer.upload_id, sealed).ok(),
            _ => None,
        };
        answer.result.detected_text = match text {
            Some(text) => self.seal(header.user_id, graded, &text).await?,
            None => None,
        };
        answer.result.attempts.clear();
        Ok(answer)
    }
}

/// Whole milliseconds. A stage that ran for 24 days would not fit; the engine is restarted more often.
fn whole(milliseconds: f64) -> i32 {
    #[allow(clippy::cast_possible_truncation, reason = "a float saturates")]
    let whole = milliseconds.round() as i32;
    whole
}

impl<A: Answers> Processor for OdometerReading<A> {
    const NAME: &'static str = "odometer_reading";
    type In = UploadGraded;
    type Out = OdometerRead;

    async fn process(&self, record: &Envelope<UploadGraded>) -> Result<Verdict<OdometerRead>, StageError> {
        let started = self.clock.now();
        let graded = &record.payload;
        let outcome = self.outcome(graded).await?;
        let now = self.clock.now();
        let root = Root { partition: record.position.partition, offset: record.position.offset };
        let header = graded.header.next(Self::NAME, crate::VERSION, now, root);
        let fault = match &outcome {
            Ok(answer) => answer.result.best.is_none().then(|| Fault {
                reason: Reason::NoOdometer,
                detail: "no number on the photo looks like a total mileage".to_owned(),
            }),
            Err(fault) => Some(fault.clone()),
        };
        let told = Told {
            record,
            header: &header,
            answer: outcome.as_ref().ok(),
            fault: fault.as_ref(),
            started,
            rules_version: self.rules_version,
        };
        let logs = told.documents();
        let read = OdometerRead {
            stamp: graded.stamp.clone(),
            image: graded.image,
            quality: graded.quality.clone(),
            fault,
            reading: outcome.ok().map(|answer| answer.result),
            header,
        };
        Ok(Verdict::EmitWith(read, logs))
    }
}
