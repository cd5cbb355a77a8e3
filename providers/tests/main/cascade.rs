//! The cascade: which service is asked when, what is believed, what is recorded.

use std::sync::Arc;
use std::time::Duration;

use providers::testing::{self, Answer, Server};
use providers::{CallError, Cascade, Limits, Protocol, ServiceConfig};
use rust_decimal::Decimal;
use schemas::events::Fault;
use schemas::reason::Reason;
use tokio::sync::Notify;

use crate::support::{DASHBOARD, TestClock, TestPhoto, cascade, chosen, embedded, outcomes, service};

/// One line with a number, this sure by the service's own word.
fn line(text: &str, confidence: f64) -> [testing::Text<'_>; 1] {
    [(text, [0.3, 0.4, 0.7, 0.5], confidence)]
}

fn google(text: &str, confidence: f64) -> Answer {
    Answer::json(&testing::google(&line(text, confidence), 1_000.0, 500.0))
}

fn aws(text: &str, confidence: f64) -> Answer {
    Answer::json(&testing::rekognition(&line(text, confidence)))
}

/// Google first, then Amazon, each behind a server of its own.
struct Two {
    google: Server,
    aws: Server,
}

impl Two {
    async fn start(google: Answer, aws: Answer) -> Self {
        Self { google: Server::start(google).await.unwrap(), aws: Server::start(aws).await.unwrap() }
    }

    fn configs(&self) -> Vec<ServiceConfig> {
        vec![
            embedded(),
            service(Protocol::GoogleVision, 2, &self.google.url),
            service(Protocol::AwsRekognition, 3, &self.aws.url),
        ]
    }

    fn cascade(&self, clock: &TestClock) -> Cascade {
        cascade(self.configs(), clock)
    }

    fn calls(&self) -> (usize, usize) {
        (self.google.calls(), self.aws.calls())
    }
}

#[tokio::test]
async fn a_sure_embedded_reading_asks_nobody_outside() {
    let two = Two::start(Answer::Never, Answer::Never).await;
    let found = two.cascade(&TestClock::new()).read(&TestPhoto::read_as("123456", 0.8)).await.unwrap();
    assert_eq!(outcomes(&found), [("Milestream Embedded", "accepted")]);
    assert_eq!(two.calls(), (0, 0));
    assert_eq!(found.attempts[0].cost, Decimal::ZERO);
}

#[tokio::test]
async fn services_that_fail_in_any_way_hand_over_and_each_try_is_reported_with_reason_and_cost() {
    let failures = [
        (Answer::Body(500, b"down".to_vec()), "http_500", "error", Decimal::ZERO),
        (Answer::Body(429, b"{}".to_vec()), "rate_limited", "rate_limited", Decimal::ZERO),
        (Answer::Body(200, b"<html>".to_vec()), "bad_response", "error", Decimal::new(15, 4)),
        (google("no digits", 1.0), "no_reading", "no_reading", Decimal::new(15, 4)),
        (google("98765", 0.3), "low_confidence", "low_confidence", Decimal::new(15, 4)),
    ];
    for (answer, outcome, trigger, cost) in failures {
        let two = Two::start(answer, aws("123456", 1.0)).await;
        let found = two.cascade(&TestClock::new()).read(&TestPhoto::blank()).await.unwrap();
        assert_eq!(
            outcomes(&found),
            [
                ("Milestream Embedded", "no_reading"),
                ("Google Vision", outcome),
                ("AWS Rekognition", "accepted")
            ]
        );
        assert_eq!(found.attempts[1].trigger(false), trigger);
        assert_eq!(found.attempts[1].cost, cost, "{outcome}");
        assert!(found.attempts[1].complaint().starts_with(outcome), "{}", found.attempts[1].complaint());
        assert_eq!(chosen(&found), ("123456".to_owned(), "0.75".to_owned(), 2));
    }
}

#[tokio::test]
async fn a_slow_service_times_out_and_the_next_is_asked() {
    let two = Two::start(Answer::Never, aws("123456", 1.0)).await;
    let mut configs = two.configs();
    configs[1].timeout = Duration::from_millis(20);
    let found = cascade(configs, &TestClock::new()).read(&TestPhoto::blank()).await.unwrap();
    assert_eq!(outcomes(&found)[1..], [("Google Vision", "timeout"), ("AWS Rekognition", "accepted")]);
    assert_eq!(found.attempts[1].complaint(), "timeout: no answer within 20 ms");
}

#[tokio::test]
async fn behind_the_hedge_delay_the_next_is_asked_too_and_the_first_answer_at_threshold_wins() {
    let two = Two::start(Answer::Never, aws("123456", 1.0)).await;
    let mut configs = two.configs();
    configs[1].hedge = Some(Duration::from_millis(10));
    let found = cascade(configs, &TestClock::new()).read(&TestPhoto::blank()).await.unwrap();
    assert_eq!(outcomes(&found)[1..], [("Google Vision", "timeout"), ("AWS Rekognition", "accepted")]);
    let [_, slow, quick] = &found.attempts[..] else { panic!("three were asked") };
    assert!(quick.hedged && !slow.hedged);
    assert_eq!(slow.trigger(quick.hedged), "hedge");
    assert_eq!(slow.cost, Decimal::new(15, 4), "Google may charge for what nobody waited for");
    assert_eq!(slow.complaint(), "timeout: not waited for: another service answered first");
}

#[tokio::test]
async fn a_hedge_that_answers_below_its_threshold_leaves_the_slow_one_its_chance() {
    let release = Arc::new(Notify::new());
    let body = testing::google(&line("123456", 1.0), 1_000.0, 500.0).to_string().into_bytes();
    let two = Two::start(Answer::Held(release.clone(), 200, body), aws("98765", 0.2)).await;
    let mut configs = two.configs();
    configs[1].hedge = Some(Duration::from_millis(10));
    let cascade = cascade(configs, &TestClock::new());
    let photo = TestPhoto::blank();
    let (found, ()) = tokio::join!(cascade.read(&photo), async {
        two.aws.arrival().await;
        release.notify_one();
    });
    let found = found.unwrap();
    assert_eq!(chosen(&found).0, "123456");
    assert_eq!(outcomes(&found)[1], ("Google Vision", "accepted"));
}

#[tokio::test]
async fn a_hedge_that_fails_hands_over_for_its_own_reason_while_the_slow_one_still_runs() {
    let two = Two::start(Answer::Never, Answer::Body(500, Vec::new())).await;
    let chat = Server::start(Answer::json(&testing::openai(&line("123456", 1.0)))).await.unwrap();
    let mut configs = two.configs();
    configs[1].hedge = Some(Duration::from_millis(10));
    configs.push(service(Protocol::OpenAi, 4, &chat.url));
    let found = cascade(configs, &TestClock::new()).read(&TestPhoto::blank()).await.unwrap();
    assert_eq!(
        outcomes(&found)[1..],
        [("Google Vision", "timeout"), ("AWS Rekognition", "http_500"), ("OpenAI Vision", "accepted")]
    );
    let triggers: Vec<_> = found.attempts.windows(2).map(|pair| pair[0].trigger(pair[1].hedged)).collect();
    assert_eq!(triggers, ["no_reading", "hedge", "error"]);
}

#[tokio::test]
async fn a_claim_of_certainty_stays_below_the_bar_until_another_engine_gives_the_same_value() {
    let two = Two::start(google("123456", 1.0), Answer::Never).await;
    let alone = two.cascade(&TestClock::new()).read(&TestPhoto::blank()).await.unwrap();
    assert_eq!(chosen(&alone), ("123456".to_owned(), "0.75".to_owned(), 1));
    let agreed = two.cascade(&TestClock::new()).read(&TestPhoto::read_as("123456", 0.6)).await.unwrap();
    assert_eq!(chosen(&agreed), ("123456".to_owned(), "0.85".to_owned(), 1));
    assert_eq!(agreed.attempts[1].candidates[0].confidence, Decimal::new(85, 2));
    let noise = two.cascade(&TestClock::new()).read(&TestPhoto::read_as("123456", 0.39)).await.unwrap();
    assert_eq!(chosen(&noise).1, "0.75", "noise agrees with nobody");
}

#[tokio::test]
async fn agreement_does_not_lift_what_looks_like_a_trip_meter_over_the_bar() {
    let two = Two::start(google("1234", 1.0), aws("1234", 1.0)).await;
    let found = two.cascade(&TestClock::new()).read(&TestPhoto::read_as("1234", 0.7)).await.unwrap();
    let (_, reading) = found.chosen.as_ref().unwrap();
    assert!(reading.best.as_ref().unwrap().confidence < reading::AUTO_ACCEPT, "{:?}", reading.best);
}

#[tokio::test]
async fn services_that_disagree_leave_it_to_a_person_with_both_values() {
    let two = Two::start(google("123456", 1.0), Answer::Never).await;
    let found = two.cascade(&TestClock::new()).read(&TestPhoto::read_as("12345", 0.7)).await.unwrap();
    let (_, reading) = found.chosen.as_ref().unwrap();
    assert!(reading.several);
    let values: Vec<String> =
        reading.candidates.iter().map(|candidate| candidate.value.to_string()).collect();
    assert_eq!(values, ["123456", "12345"]);
}

#[tokio::test]
async fn where_nobody_is_sure_enough_the_surest_stands_and_the_first_of_equals() {
    let two = Two::start(google("98765", 0.5), aws("123456", 0.5)).await;
    let found = two.cascade(&TestClock::new()).read(&TestPhoto::read_as("11111", 0.2)).await.unwrap();
    assert_eq!(chosen(&found), ("98765".to_owned(), "0.37".to_owned(), 1));
    let nothing = Two::start(google("", 0.5), Answer::Body(500, Vec::new())).await;
    let found = nothing.cascade(&TestClock::new()).read(&TestPhoto::blank()).await.unwrap();
    assert_eq!(found.chosen.map(|(place, _)| place), Some(0), "the embedded reader's empty answer");
}

#[tokio::test]
async fn where_every_service_fails_there_is_no_reading_and_every_reason() {
    let two = Two::start(Answer::Body(500, Vec::new()), Answer::Body(403, Vec::new())).await;
    let photo = TestPhoto::new(Err(CallError::Internal("reading the photo failed")));
    let found = two.cascade(&TestClock::new()).read(&photo).await.unwrap();
    assert!(found.chosen.is_none());
    let codes: Vec<&str> = outcomes(&found).into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, ["internal", "http_500", "unauthorized"]);
}

#[tokio::test]
async fn a_photo_that_cannot_be_decoded_is_sent_to_nobody() {
    let two = Two::start(Answer::Never, Answer::Never).await;
    let fault = Fault { reason: Reason::TruncatedImage, detail: "cut off".to_owned() };
    let photo = TestPhoto::new(Err(CallError::Photo(fault.clone())));
    assert_eq!(two.cascade(&TestClock::new()).read(&photo).await.unwrap_err(), fault);
    assert_eq!(two.calls(), (0, 0));
}

#[tokio::test]
async fn the_breaker_opens_after_five_failures_and_closes_when_the_service_is_back() {
    let two = Two::start(Answer::Body(503, Vec::new()), aws("123456", 1.0)).await;
    let clock = TestClock::new();
    let cascade = two.cascade(&clock);
    let photo = TestPhoto::blank();
    for _ in 0..5 {
        assert_eq!(outcomes(&cascade.read(&photo).await.unwrap())[1].1, "http_503");
    }
    let left_alone = cascade.read(&photo).await.unwrap();
    assert_eq!(
        outcomes(&left_alone)[1..],
        [("Google Vision", "circuit_open"), ("AWS Rekognition", "accepted")]
    );
    assert_eq!(
        (left_alone.attempts[1].breaker.as_str(), left_alone.attempts[1].trigger(false)),
        ("open", "circuit_open")
    );
    assert_eq!((two.google.calls(), left_alone.attempts[1].cost), (5, Decimal::ZERO));
    clock.pass(30);
    assert_eq!(cascade.read(&photo).await.unwrap().attempts[1].breaker, "half_open");
    assert_eq!(two.google.calls(), 6);
    assert_eq!(outcomes(&cascade.read(&photo).await.unwrap())[1].1, "circuit_open", "it failed again");
    clock.pass(30);
    two.google.usually(google("123456", 1.0));
    let back = cascade.read(&photo).await.unwrap();
    assert_eq!((back.attempts[1].breaker.as_str(), back.attempts[1].outcome()), ("half_open", "accepted"));
    assert_eq!(cascade.read(&photo).await.unwrap().attempts[1].breaker, "closed");
}

#[tokio::test]
async fn a_budget_that_is_used_up_hands_over_without_a_call_and_is_whole_in_the_next_minute() {
    let two = Two::start(google("123456", 1.0), aws("123456", 1.0)).await;
    let mut configs = two.configs();
    configs[1].limits = Limits { per_minute: Some(2), ..Limits::default() };
    let clock = TestClock::new();
    let cascade = cascade(configs, &clock);
    let photo = TestPhoto::blank();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(outcomes(&cascade.read(&photo).await.unwrap())[1].1.to_owned());
    }
    assert_eq!(seen, ["accepted", "accepted", "rate_limited"]);
    assert_eq!(two.calls(), (2, 1));
    clock.pass(60);
    assert_eq!(outcomes(&cascade.read(&photo).await.unwrap())[1].1, "accepted");
}

#[tokio::test]
async fn services_are_asked_by_priority_and_name_and_the_order_names_the_cascade() {
    let two = Two::start(google("123456", 0.1), aws("123456", 0.1)).await;
    let mut configs = two.configs();
    let clock = TestClock::new();
    let usual = cascade(configs.clone(), &clock);
    configs.reverse();
    assert_eq!(cascade(configs.clone(), &clock).id(), usual.id());
    assert_eq!(usual.id().len(), 16);
    configs[0].priority = 2;
    let equal = cascade(configs.clone(), &clock);
    let found = equal.read(&TestPhoto::blank()).await.unwrap();
    assert_eq!(outcomes(&found)[1].0, "AWS Rekognition", "ties go by name");
    assert_ne!(equal.id(), usual.id());
    assert_eq!(cascade(vec![embedded()], &clock).id(), "", "as kept before there were others");
}

#[tokio::test]
async fn a_cascade_that_is_built_anew_goes_on_with_breakers_and_budgets() {
    let two = Two::start(google("123456", 1.0), aws("123456", 1.0)).await;
    let mut configs = two.configs();
    configs[1].limits.per_day = Some(1);
    let clock = TestClock::new();
    let first = cascade(configs.clone(), &clock);
    first.read(&TestPhoto::blank()).await.unwrap();
    assert!(first.is_of(&configs));
    configs[1].credentials.key = Some("another".into());
    assert!(!first.is_of(&configs));
    let (second, _) = Cascade::new(configs, Some(&first), clock.now());
    assert_eq!(second.id(), first.id(), "a new key makes no new answer");
    let found = second.read(&TestPhoto::blank()).await.unwrap();
    assert_eq!(outcomes(&found)[1], ("Google Vision", "rate_limited"));
}

#[tokio::test]
async fn a_dashboard_full_of_numbers_gives_its_odometer_through_the_whole_cascade() {
    let google = Answer::json(&testing::google(&DASHBOARD, 1_000.0, 500.0));
    let two = Two::start(google, Answer::Never).await;
    let found = two.cascade(&TestClock::new()).read(&TestPhoto::read_as("123456", 0.6)).await.unwrap();
    assert_eq!(chosen(&found), ("123456".to_owned(), "0.85".to_owned(), 1));
}
