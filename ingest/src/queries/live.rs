//! `GET /v1/uploads/{id}/events`: an upload's progress as server-sent events.
//!
//! The tables are the only source, so a stream holds no state that a restart could lose: an event's id is its place in the
//! order of states that an upload can reach, and `Last-Event-ID` resumes after it, at any gateway.

use std::convert::Infallible;
use std::sync::Arc;

use futures::stream;
use runtime::switches::Flag;
use schemas::ids::{UploadId, UserId};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use warp::http::StatusCode;
use warp::http::header::HeaderValue;
use warp::reply::{Reply as _, Response};
use warp::sse::Event;

use super::status::{RewardState, Status, one};
use crate::auth::admission::Caller;
use crate::config::Timeouts;
use crate::http::operation::Operation;
use crate::http::places::{LONG, Places};
use crate::http::problem::{ApiError, INVALID_PARAMETER, LIVE_UPDATES_OFF, RATE_LIMITED, UPLOAD_NOT_FOUND};
use crate::http::reply::Reply;
use crate::http::request::{Dependency, Extract, Path, Request};
use crate::http::shares::{Share, Shares};
use crate::live::LiveSettings;

/// Room for confirmations behind a state's place.
const STEP: u64 = 1000;

/// A place in the order of states, and the name of its event.
type Milestone = (u64, &'static str);

/// The milestones that an upload has reached, in order: of the stages the newest alone, as each event shows the newest
/// state anyway.
fn milestones(status: &Status) -> Vec<Milestone> {
    let stage = match status.stage() {
        "quality_check" => 1,
        "odometer_reading" => 2,
        "fraud_check" => 3,
        "review" => 4,
        _ => 0,
    };
    if stage > 0 {
        return vec![(stage * STEP, "stage")];
    }
    if status.appeal_waits() {
        return vec![(5 * STEP, "decided"), (5 * STEP + 1, "appeal")];
    }
    let again = if status.appeal_is_decided() { 2 } else { 0 };
    let mut reached = vec![(5 * STEP + again, "decided")];
    let Some(reward) = status.reward() else { return reached };
    reached.push((6 * STEP, "reward"));
    if status.awaits_claim() {
        reached.push((6 * STEP + 1, "reward"));
    }
    if let Some(confirmations) = status.confirmations() {
        reached.push((7 * STEP + u64::from(confirmations).min(STEP - 1), "payout"));
    }
    match reward {
        RewardState::Open => {}
        RewardState::Paid => reached.push((8 * STEP, "payout")),
        RewardState::Cancelled => reached.push((8 * STEP, "reward")),
    }
    reached
}

/// Whether nothing more will come.
fn is_final(status: &Status, follow_rewards: bool) -> bool {
    match (status.verdict(), status.reward()) {
        (Some("rejected" | "failed"), _) => !status.appeal_waits(),
        (Some("verified"), Some(reward)) => reward != RewardState::Open,
        (Some("verified"), None) => !(follow_rewards && status.earns()),
        _ => false,
    }
}

/// Events that wait for a slow client; the stream's task stops looking at the tables meanwhile.
const WAITING: usize = 4;

/// What event streams work with.
pub(crate) struct Streams {
    pub(crate) pool: PgPool,
    pub(crate) places: Places,
    /// What a user may take of them.
    pub(crate) each: Shares<UserId>,
    pub(crate) timeouts: Timeouts,
    /// Whether the stream of a verified upload stays open until its reward is paid.
    pub(crate) follow_rewards: bool,
    /// Whether streams are served at all.
    pub(crate) live: Arc<LiveSettings>,
    /// Ends every stream.
    pub(crate) stop: CancellationToken,
}

/// One stream: a task that looks at the tables for it.
struct Following {
    streams: Arc<Streams>,
    user: UserId,
    upload: UploadId,
    last: u64,
    events: mpsc::Sender<Event>,
    _place: OwnedSemaphorePermit,
    _share: Share<UserId>,
}

/// `Last-Event-ID`: an id of the stream; 0 where there is none.
pub(crate) struct LastEventId(u64);

impl<S: Sync> Extract<S> for LastEventId {
    async fn extract(_state: &S, request: &mut Request) -> Result<Self, ApiError> {
        let sent = request.headers.get("last-event-id").filter(|id| !id.is_empty());
        let id = sent.map_or(Some(0), |id| id.to_str().ok()?.parse().ok());
        id.map(Self).ok_or_else(|| {
            let detail = "the header Last-Event-ID is not usable: it is not an id of this stream";
            INVALID_PARAMETER.because(detail).field("Last-Event-ID")
        })
    }

    fn describe(operation: &mut Operation) {
        operation.parameter(
            "header",
            "Last-Event-ID",
            json!({ "type": "integer" }),
            "Resumes after this event",
        );
        operation.problems(&[INVALID_PARAMETER]);
    }
}

/// Events, or 204 where the client has seen the final one: it makes an `EventSource` not come again.
pub(crate) struct Events(Option<Followed>);

/// What the task that looks has seen. The task ends with it.
struct Followed {
    events: mpsc::Receiver<Event>,
    _looking: JoinSet<()>,
}

impl Reply for Events {
    fn into_response(self) -> Result<Response, ApiError> {
        let Some(followed) = self.0 else {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        };
        let stream = stream::unfold(followed, |mut followed| async move {
            let event = followed.events.recv().await?;
            Some((Ok::<_, Infallible>(event), followed))
        });
        let mut response = warp::sse::reply(warp::sse::keep_alive().stream(stream)).into_response();
        // nginx and its kin would hold small events back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        let text = json!({ "text/event-stream": { "schema": { "type": "string" } } });
        operation.response(200, "Events until the final one", text);
        operation.response(204, "The final event was seen: do not come again", Value::Null);
    }
}

/// The route.
pub(crate) async fn events(
    Dependency(streams): Dependency<Arc<Streams>>,
    caller: Caller,
    Path(upload): Path<UploadId>,
    LastEventId(last): LastEventId,
) -> Result<Events, ApiError> {
    if !streams.live.now().switches.is_on(Flag::LiveUpdates) {
        return Err(LIVE_UPDATES_OFF.error());
    }
    let share = streams.each.take(caller.user, 1).ok_or_else(|| too_many(&streams))?;
    let place = streams.places.take_now()?;
    let found = one(&streams.pool, caller.user, upload).await?;
    let status = found.ok_or_else(|| UPLOAD_NOT_FOUND.error())?;
    let reached = milestones(&status).last().map_or(0, |(id, _)| *id);
    if is_final(&status, streams.follow_rewards) && reached <= last {
        return Ok(Events(None));
    }
    let (events, seen) = mpsc::channel(WAITING);
    let following =
        Following { streams, user: caller.user, upload, last, events, _place: place, _share: share };
    let mut looking = JoinSet::new();
    looking.spawn(following.run(status));
    Ok(Events(Some(Followed { events: seen, _looking: looking })))
}

fn too_many(streams: &Streams) -> ApiError {
    let most = streams.each.each();
    RATE_LIMITED.because(format!("you follow {most} uploads already: close one first")).retry_after(LONG)
}

impl Following {
    /// Looks and sends, until the final event, the end of the stream's life, the client's going, or the gateway's.
    async fn run(mut self, first: Status) {
        let life = self.streams.timeouts.stream;
        // Whichever way it ends, dropping the sender ends the response.
        let _ = tokio::time::timeout(life, self.follow(first)).await;
    }

    async fn follow(&mut self, first: Status) {
        let mut status = Some(first);
        loop {
            if let Some(status) = &status
                && (!self.send(status).await || is_final(status, self.streams.follow_rewards))
            {
                return;
            }
            tokio::select! {
                () = self.streams.stop.cancelled() => return,
                () = self.events.closed() => return,
                () = sleep(self.streams.timeouts.poll) => {}
            }
            status = match one(&self.streams.pool, self.user, self.upload).await {
                // Erased meanwhile.
                Ok(None) => return,
                Ok(status) => status,
                Err(error) => {
                    // The client stays: the next look may succeed, and the stream's life bounds the tries.
                    tracing::warn!(error = %error, "an event stream could not read the tables");
                    None
                }
            };
        }
    }

    /// Sends what is new; false where the client has gone.
    async fn send(&mut self, status: &Status) -> bool {
        for (id, name) in milestones(status) {
            if id > self.last {
                self.last = id;
                // Text and numbers always encode.
                let data = serde_json::to_string(&status.document()).unwrap_or_default();
                let event = Event::default().event(name).id(id.to_string());
                if self.events.send(event.data(data)).await.is_err() {
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queries::status::tests::{appealed, cancelled, graded, granted, paid, received, verified};

    #[test]
    fn ids_grow_with_every_state_that_an_upload_can_reach() {
        let states = [received(), graded(), verified(), paid(0), paid(7), paid(12)];
        let ids: Vec<u64> = states.iter().map(|status| milestones(status).last().unwrap().0).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    }

    #[test]
    fn a_reward_that_is_to_be_claimed_is_sent_again() {
        let ids: Vec<u64> = milestones(&granted(true)).iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [5 * STEP, 6 * STEP, 6 * STEP + 1]);
        assert_eq!(milestones(&granted(false)).len(), 2);
        assert!(!is_final(&granted(true), true));
    }

    #[test]
    fn no_kind_of_event_is_skipped_when_states_pass_between_two_looks() {
        let names: Vec<&str> = milestones(&paid(12)).iter().map(|(_, name)| *name).collect();
        assert_eq!(names, ["decided", "reward", "payout", "payout"]);
    }

    #[test]
    fn a_verified_upload_ends_its_stream_unless_a_reward_is_to_follow() {
        assert!(!is_final(&graded(), true));
        assert!(is_final(&verified(), false));
        assert!(!is_final(&verified(), true));
        assert!(!is_final(&paid(3), false));
        assert!(is_final(&paid(12), true));
    }

    #[test]
    fn an_appeal_opens_the_stream_of_a_rejected_upload_again_until_a_person_has_decided() {
        let (waits, decided) = (appealed(false), appealed(true));
        assert_eq!(milestones(&waits), [(5 * STEP, "decided"), (5 * STEP + 1, "appeal")]);
        assert_eq!(milestones(&decided), [(5 * STEP + 2, "decided")]);
        assert!(!is_final(&waits, false) && is_final(&decided, false));
    }

    #[test]
    fn a_cancelled_reward_is_sent_as_a_reward_and_ends_the_stream() {
        let names: Vec<&str> = milestones(&cancelled()).iter().map(|(_, name)| *name).collect();
        assert_eq!(names, ["decided", "reward", "reward"]);
        assert!(is_final(&cancelled(), true));
    }
}
