//! `odometer_reading`: reads the mileage by a cascade of services, of which the embedded reader is the first. The answer is kept
//! under photo, reader and cascade before it is published: a redelivery reads it back, reads no photo again and pays nobody twice.
//! Knows nothing of earlier readings.

mod answers;
mod attempts;
mod documents;
mod measured;
mod photo;
mod pictures;
mod postgres;
mod roster;

use std::sync::Arc;

use providers::vault::Keys;
use providers::{Attempt, Cascade, Found};
use reading::{Reader, Surroundings};
use runtime::{Envelope, Processor, StageError, Verdict};
use schemas::events::{Fault, LookAlike, OdometerRead, PixelHolder, ReadingResult, Root, UploadGraded};
use schemas::ids::{Micros, UserId};
use schemas::reason::Reason;
use schemas::sealed::Sealed;

pub use self::answers::{Answer, AnswerKey, Answers};
use self::attempts::{as_published, is_embedded, whole};
use self::documents::UploadFacts;
use self::photo::Upload;
pub use self::pictures::Pictures;
pub use self::postgres::PostgresAnswers;
use self::roster::Roster;
pub use self::roster::{ServiceRow, endpoint};
use crate::photos::{PhotoContext, processing_failed};
use crate::workers::PHOTOS_IN_FLIGHT;

/// Reads odometers; `A` keeps the answers.
pub struct OdometerReading<A> {
    answers: A,
    roster: Roster,
    reader: Arc<Reader>,
    context: PhotoContext,
    compares: bool,
}

/// What is passed on: the answer, or the fault in its place.
type Outcome = Result<Answer, Unread>;

/// A photo that was not read.
struct Unread {
    fault: Fault,
    /// The services that failed.
    attempts: Vec<Attempt>,
}

/// What is known of the picture from other uploads.
#[derive(Default)]
struct KnownPictures {
    pixel_holder: Option<PixelHolder>,
    look_alike: Option<LookAlike>,
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self { fault, attempts: Vec::new() }
    }
}

impl<A: Answers> OdometerReading<A> {
    pub(crate) fn new(context: PhotoContext, reader: Arc<Reader>, service_keys: Keys, answers: A) -> Self {
        let roster = Roster::new(service_keys, context.clock.clone(), &reader);
        Self { answers, roster, reader, context, compares: true }
    }

    /// The same, which compares photos with those of other vehicles or does not.
    #[must_use]
    pub(crate) fn comparing(self, compares: bool) -> Self {
        Self { compares, ..self }
    }

    async fn outcome(&self, graded: &UploadGraded) -> Result<Outcome, StageError> {
        let header = &graded.header;
        if let Some(fault) = &graded.fault {
            return Ok(Err(fault.clone().into()));
        }
        let cascade = self.roster.cascade(self.answers.services()).await?;
        let key = AnswerKey {
            image_hash: &header.image_hash,
            reader_version: self.reader.version(),
            cascade: cascade.id(),
        };
        if let Some(kept) = self.answers.find(key).await? {
            return Ok(Ok(self.for_upload(kept, graded).await?));
        }
        match self.read(graded, &cascade).await? {
            Ok(answer) => {
                let kept = self.answers.keep(key, answer).await?;
                Ok(Ok(self.for_upload(kept, graded).await?))
            }
            Err(unread) => Ok(Err(unread)),
        }
    }

    async fn read(&self, graded: &UploadGraded, cascade: &Cascade) -> Result<Outcome, StageError> {
        let Some(frame) = graded.quality.clone() else {
            return Ok(Err(processing_failed("the photo was passed on unmeasured").into()));
        };
        let bytes = match self.context.photos.fetch(&graded.header).await? {
            Ok(bytes) => bytes,
            Err(fault) => return Ok(Err(fault.into())),
        };
        let upload = Upload::new(
            bytes,
            graded.image,
            frame,
            self.reader.clone(),
            self.context.workers.clone(),
            self.context.clock.clone(),
        );
        let Found { mut attempts, chosen } = match cascade.read(&upload).await {
            Ok(found) => found,
            Err(fault) => return Ok(Err(fault.into())),
        };
        // The embedded reader's time is that of its work, without waiting for a place.
        let spent = upload.spent();
        for attempt in attempts.iter_mut().filter(|attempt| is_embedded(attempt)) {
            attempt.spent_ms = spent.map_or(attempt.spent_ms, |spent| spent.wall_ms);
        }
        let (Some((place, reading)), Some(photo)) = (chosen, upload.facts()) else {
            return Ok(Err(Unread { fault: processing_failed("reading the photo failed"), attempts }));
        };
        let header = &graded.header;
        let text = Some(reading.text()).filter(|text| !text.is_empty());
        let detected_text = match text {
            Some(text) => self.seal(header.user_id, graded, &text).await?,
            None => None,
        };
        // Waiting for a place is not reading.
        let spent_ms = attempts.iter().map(|attempt| attempt.spent_ms).sum();
        let result = ReadingResult {
            service: attempts[place].service.clone(),
            reader_version: attempts[place].model.clone(),
            processing_time_ms: whole(spent_ms),
            best: reading.best.clone(),
            candidates: reading.candidates.clone(),
            several_readings: reading.several,
            fallback_used: attempts.len() > 1,
            detected_text,
            bounding_boxes: reading.bounding_boxes_json(photo.1),
            quality_score: reading.quality_score,
            lighting: reading.lighting,
            blur: reading.blur,
            glare: reading.glare,
            attempts: attempts.iter().map(|attempt| as_published(attempt, spent)).collect(),
        };
        Ok(Ok(Answer::new(header, result, &reading, photo, spent_ms, attempts)))
    }

    /// Who sent these pixels first, in another file. What is found is kept: a redelivery finds the same.
    async fn pixel_holder(&self, graded: &UploadGraded) -> Result<Option<PixelHolder>, StageError> {
        let Some(pixel_hash) = &graded.pixel_hash else { return Ok(None) };
        self.answers.hold_pixels(pixel_hash, &graded.header).await
    }

    /// A photo of another vehicle that this one may be a copy of.
    async fn look_alike(
        &self,
        graded: &UploadGraded,
        outcome: &Outcome,
    ) -> Result<Option<LookAlike>, StageError> {
        let Some(answer) = outcome.as_ref().ok().filter(|_| self.compares) else { return Ok(None) };
        let kept = answer.surroundings.as_deref().and_then(|kept| hex::decode(kept).ok());
        let surroundings = kept.and_then(|kept| Surroundings::from_bytes(&kept));
        let (Some(surroundings), Some(best)) = (surroundings, &answer.result.best) else { return Ok(None) };
        self.answers.look_alike(&graded.header, best.value, surroundings).await
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

impl<A: Answers> Processor for OdometerReading<A> {
    const NAME: &'static str = "odometer_reading";
    const IN_FLIGHT: usize = PHOTOS_IN_FLIGHT;
    type In = UploadGraded;
    type Out = OdometerRead;

    async fn process(&self, record: &Envelope<UploadGraded>) -> Result<Verdict<OdometerRead>, StageError> {
        let started = self.context.clock.now();
        let outcome = self.outcome(&record.payload).await?;
        let known = KnownPictures {
            pixel_holder: self.pixel_holder(&record.payload).await?,
            look_alike: self.look_alike(&record.payload, &outcome).await?,
        };
        Ok(self.read_event(record, started, outcome, known))
    }

    fn give_up(&self, record: &Envelope<UploadGraded>, _: &StageError) -> Option<Verdict<OdometerRead>> {
        let fault = processing_failed("the photo could not be fetched or read, while others could");
        Some(self.read_event(record, self.context.clock.now(), Err(fault.into()), KnownPictures::default()))
    }

    fn needs_dependencies(&self, graded: &UploadGraded) -> bool {
        graded.fault.is_none()
    }

    async fn dependencies_respond(&self) -> bool {
        self.context.photos.answer().await && self.answers.services().await.is_ok()
    }
}

impl<A: Answers> OdometerReading<A> {
    /// What travels on, with the documents about it.
    fn read_event(
        &self,
        record: &Envelope<UploadGraded>,
        started: Micros,
        outcome: Outcome,
        known: KnownPictures,
    ) -> Verdict<OdometerRead> {
        let graded = &record.payload;
        let now = self.context.clock.now();
        let root = Root { partition: record.position.partition, offset: record.position.offset };
        let header = graded.header.next(Self::NAME, crate::VERSION, now, root);
        let fault = match &outcome {
            Ok(answer) => answer.result.best.is_none().then(|| Fault {
                reason: Reason::NoOdometer,
                detail: "no number on the photo looks like a total mileage".to_owned(),
            }),
            Err(unread) => Some(unread.fault.clone()),
        };
        let facts = UploadFacts {
            record,
            header: &header,
            answer: outcome.as_ref().ok(),
            attempts: match &outcome {
                Ok(answer) => answer.attempts(),
                Err(unread) => unread.attempts.clone(),
            },
            fault: fault.as_ref(),
            started,
            rules_version: self.context.rules_version,
        };
        let logs = facts.documents();
        let read = OdometerRead {
            stamp: graded.stamp.clone(),
            image: graded.image,
            quality: graded.quality.clone(),
            fault,
            reading: outcome.ok().map(|answer| answer.result),
            pixel_hash: graded.pixel_hash.clone(),
            pixel_holder: known.pixel_holder,
            look_alike: known.look_alike,
            review: None,
            header,
        };
        Verdict::EmitWith(read, logs)
    }
}
