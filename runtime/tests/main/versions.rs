//! What the next release may write is what the registry lets it register under our rule; that today's types read it is tested in
//! `schemas`, on the same versions.

use futures::StreamExt as _;
use runtime::registry::{Registry, RegistryError, subject};
use schemas::events::{EachEvent, Event, each_event, registry_subjects};
use schemas::testing::{Versions, versions};
use serde_json::Value;

use crate::{registry, unique_prefix};

struct Subject {
    name: String,
    rule: &'static str,
    today: &'static str,
    versions: Versions,
}

#[derive(Default)]
struct Subjects {
    prefix: String,
    all: Vec<Subject>,
}

impl EachEvent for Subjects {
    fn event<E: Event>(&mut self) {
        self.all.push(Subject {
            name: subject(&self.prefix, E::TOPIC, E::NAME),
            rule: E::TOPIC.spec().compatibility,
            today: E::schema_text(),
            versions: versions::<E>(),
        });
    }
}

/// Registers today's schema and then another on a subject of its own: a history of hundreds of versions would be compared pair
/// by pair.
async fn follows_today(
    registry: &Registry,
    subject: &Subject,
    n: usize,
    next: &str,
) -> Result<u32, RegistryError> {
    let name = format!("{}-{n}", subject.name);
    registry.set_compatibility(&name, subject.rule).await.unwrap();
    registry.register(&name, subject.today).await.unwrap();
    registry.register(&name, next).await
}

#[tokio::test]
async fn the_registry_accepts_every_version_that_today_reads_and_refuses_a_symbol_of_a_closed_enum() {
    let registry = registry();
    let mut subjects = Subjects { prefix: unique_prefix(), ..Subjects::default() };
    each_event(&mut subjects);
    let (mut accepted, mut refused) = (0, 0);
    for subject in &subjects.all {
        let Versions { next, earlier, closed } = &subject.versions;
        let open = earlier.iter().chain(next).enumerate();
        let responses = futures::stream::iter(open)
            .map(async |(n, version)| (version, follows_today(&registry, subject, n, &version.schema).await))
            .buffer_unordered(8);
        let responses: Vec<_> = responses.collect().await;
        for (version, response) in &responses {
            assert!(response.is_ok(), "{} {}: {response:?}", subject.name, version.change);
        }
        accepted += responses.len();
        for (n, (closed, schema)) in closed.iter().enumerate() {
            let response = follows_today(&registry, subject, responses.len() + n, schema).await;
            assert!(
                matches!(response, Err(RegistryError::Incompatible { .. })),
                "{} {closed}: {response:?}",
                subject.name
            );
            refused += 1;
        }
    }
    println!("{} subjects: {accepted} versions accepted, {refused} refused", subjects.all.len());
    // Nine events carry the stamp with the unit, and one names budgets.
    assert_eq!(refused, 10);
}

/// The first release's enums of verdicts, light and states had no default, and some of its reasons were missing.
#[tokio::test]
async fn todays_schemas_follow_those_of_the_first_release() {
    fn first(schema: &mut Value) {
        match schema {
            Value::Object(object) => {
                if ["Verdict", "Lighting", "PayoutState", "AttemptState"]
                    .map(Some)
                    .contains(&object.get("name").and_then(Value::as_str))
                {
                    object.remove("default");
                }
                if object.get("name").is_some_and(|name| name == "Reason") {
                    object["symbols"].as_array_mut().unwrap().truncate(27);
                }
                object.values_mut().for_each(first);
            }
            Value::Array(items) => items.iter_mut().for_each(first),
            _ => {}
        }
    }
    let (registry, prefix) = (registry(), unique_prefix());
    for (topic, record, today) in registry_subjects() {
        let subject = subject(&prefix, topic, record);
        let mut earlier = serde_json::from_str(today).unwrap();
        first(&mut earlier);
        registry.set_compatibility(&subject, "FULL_TRANSITIVE").await.unwrap();
        registry.register(&subject, &earlier.to_string()).await.unwrap();
        registry.register(&subject, today).await.unwrap();
    }
}
