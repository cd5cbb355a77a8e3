//! `GET /v1/uploads/{id}/events`: an upload's progress as server-sent events.
//!
//! The tables are the only source, so a stream holds no state that a restart could lose: an event's id is its place in the
//! order of states that an upload can reach, and `Last-Event-ID` resumes after it, at any gateway.

use std::convert::Infallible;

use futures::stream;
use schemas::ids::{UploadId, UserId};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use warp::http::StatusCode;
use warp::reply::{Reply as _, Response};
use warp::sse::Event;

use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::status::{RewardState, Status, one};

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
    let mut reached = vec![(5 * STEP, "decided")];
    let Some(reward) = status.reward() else { return reached };
    reached.push((6 * STEP, "reward"));
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
        (Some("rejected" | "failed"), _) => true,
        (Some("verified"), Some(reward)) => reward != RewardState::Open,
        (Some("verified"), None) => !(follow_rewards && status.earns()),
        _ => false,
    }
}

/// Events that wait for a slow client; the stream's task stops looking at the tables meanwhile.
const WAITING: usize = 4;

/// One stream: a task that looks at the tables for it.
struct Following {
    gateway: Gateway,
    user: UserId,
    upload: UploadId,
    last: u64,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Gateway {
    /// The route. 204 where the client has seen the final event: it tells an `EventSource` not to come again.
    pub(crate) async fn events(
        &self,
        user: UserId,
        upload: UploadId,
        last_event_id: Option<String>,
        stop: CancellationToken,
    ) -> Result<Response, ApiError> {
        let last = match last_event_id {
            None => 0,
            Some(id) => id.parse().map_err(|_| ApiError::InvalidParameter {
                name: "Last-Event-ID",
                detail: "it is not an id of this stream".to_owned(),
            })?,
        };
        let place = self.stream_place()?;
        let status = one(self.pool(), user, upload).await?.ok_or(ApiError::UploadNotFound)?;
        let reached = milestones(&status).last().map_or(0, |(id, _)| *id);
        if is_final(&status, self.config().follow_rewards) && reached <= last {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        let (events, receiver) = mpsc::channel(WAITING);
        let gateway = self.clone();
        let following = Following { gateway, user, upload, last, events, stop, _place: place };
        tokio::spawn(following.run(status));
        let stream = stream::unfold(receiver, |mut receiver| async move {
            let event = receiver.recv().await?;
            Some((Ok::<_, Infallible>(event), receiver))
        });
        let mut response = warp::sse::reply(warp::sse::keep_alive().stream(stream)).into_response();
        // nginx and its kin would hold small events back.
        let off = warp::http::HeaderValue::from_static("no");
        response.headers_mut().insert("x-accel-buffering", off);
        Ok(response)
    }
}

impl Following {
    /// Looks and tells, until the final event, the end of the stream's life, the client's going, or the gateway's.
    async fn run(mut self, first: Status) {
        let life = self.gateway.config().timeouts.stream;
        // Whichever way it ends, dropping the sender ends the response.
        let _ = tokio::time::timeout(life, self.follow(first)).await;
    }

    async fn follow(&mut self, first: Status) {
        let mut status = Some(first);
        loop {
            if let Some(status) = &status
                && (!self.tell(status).await || is_final(status, self.gateway.config().follow_rewards))
            {
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.events.closed() => return,
                () = sleep(self.gateway.config().timeouts.poll) => {}
            }
            status = match one(self.gateway.pool(), self.user, self.upload).await {
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
    async fn tell(&mut self, status: &Status) -> bool {
        for (id, name) in milestones(status) {
            if id > self.last {
                self.last = id;
                let event = Event::default().event(name).id(id.to_string());
                if self.events.send(event.data(status.document().to_string())).await.is_err() {
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
    use crate::status::tests::{cancelled, graded, paid, received, verified};

    #[test]
    fn ids_grow_with_every_state_that_an_upload_can_reach() {
        let states = [received(), graded(), verified(), paid(0), paid(7), paid(12)];
        let ids: Vec<u64> = states.iter().map(|status| milestones(status).last().unwrap().0).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
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
    fn a_cancelled_reward_is_told_as_a_reward_and_ends_the_stream() {
        let names: Vec<&str> = milestones(&cancelled()).iter().map(|(_, name)| *name).collect();
        assert_eq!(names, ["decided", "reward", "reward"]);
        assert!(is_final(&cancelled(), true));
    }
}
