//! What the tables say of people who are erased.

use runtime::Sink as _;
use schemas::events::{Stamp, UserErased, Verdict};
use schemas::ids::{EventId, Micros, UserId};
use schemas::sealed::UserKey;
use serde_json::Value;
use sinks::postgres::{PostgresConfig, PostgresSink, UploadEvent};
use uuid::Uuid;

use crate::stories::{START, Story};
use crate::support::{Schema, envelopes};

pub fn erased(user: UserId) -> UploadEvent {
    UploadEvent::Erased(UserErased {
        event_id: EventId(Uuid::from_u128(user.0.as_u128() + 1)),
        user_id: user,
        occurred_at: Micros(START),
    })
}

#[tokio::test]
async fn what_is_said_of_an_erased_person_goes_whenever_the_erasure_comes_and_nobody_elses() {
    let (one, other) = (Story::new(1, 1), Story::new(2, 1));
    let mut dumps: Vec<Value> = Vec::new();
    for place in [0, 1, 3, 6] {
        let schema = Schema::new().await;
        let sink = PostgresSink::new(schema.pool.clone(), PostgresConfig::default());
        let mut events = Vec::new();
        for story in [&one, &other] {
            let (user, key) = (story.header.user_id, UserKey::generate());
            // In this test the key outlives the erasure, as it does where a batch has read it just before.
            sqlx::query(
                "with u as (insert into users (id) values ($1) returning id) insert into user_keys select id, $2 from u",
            )
            .bind(user.0)
            .bind(key.expose())
            .execute(&schema.pool)
            .await
            .unwrap();
            let name = key.seal(story.header.upload_id, "Ada Läufer.jpg").unwrap();
            let stamp = Stamp { original_filename: Some(name), ..story.stamp.clone() };
            let sealed = Story { stamp, ..story.clone() };
            events.extend([sealed.received(), sealed.graded(), sealed.read()]);
        }
        events.insert(place, erased(one.header.user_id));
        events.extend(one.events(Verdict::Verified, None, false).into_iter().skip(3));
        for event in events {
            sink.write(&envelopes([event])).await.unwrap();
        }
        let uploads = schema.rows("odometer_uploads").await;
        let of = |story: &Story| {
            let id = story.header.upload_id.to_string();
            uploads.as_array().unwrap().iter().find(|row| row["id"] == *id).unwrap().clone()
        };
        for column in ["image_url", "original_filename"] {
            assert_eq!(of(&one)[column], Value::Null, "{column} after {place} events");
        }
        assert_eq!(of(&one)["upload_status"], "verified", "what was decided stands");
        assert_eq!(of(&other)["original_filename"], "Ada Läufer.jpg");
        assert_ne!(of(&other)["image_url"], Value::Null);
        dumps.push(schema.dump().await);
        schema.drop().await;
    }
    for dump in &mut dumps {
        // When a row of an account was inserted by the test itself.
        dump["users"].as_array_mut().unwrap().iter_mut().for_each(|user| {
            user.as_object_mut().unwrap().retain(|column, _| !column.ends_with("_at"));
        });
    }
    assert!(dumps.windows(2).all(|two| two[0] == two[1]), "{dumps:#?}");
}
