//! Looking for texts in everything that the roles of a world wrote.

use futures::TryStreamExt as _;
use mongodb::bson::{Bson, Document};
use runtime::snapshot;
use schemas::topic::Topic;
use sinks::mongo::MongoConfig;

use crate::world::World;

/// A text that is looked for, by the name under which it is told.
pub type Mark = (&'static str, String);

/// Where marks are found, each as "name in place: text": in clear or as digits of bytes.
pub fn marked(place: &str, text: &str, marks: &[Mark]) -> Vec<String> {
    let lower = text.to_lowercase();
    let holds = marks.iter().filter(|(_, mark)| {
        text.contains(mark) || lower.contains(&mark.to_lowercase()) || lower.contains(&hex::encode(mark))
    });
    holds.map(|(name, _)| format!("{name} in {place}: {text}")).collect()
}

/// Of every record of every topic: key, headers and bytes.
pub fn in_topics(world: &World, marks: &[Mark]) -> Vec<String> {
    let mut found = Vec::new();
    for topic in Topic::ALL {
        for record in snapshot::read(&world.kafka, &world.topic(topic)).unwrap() {
            let headers = record.headers.iter().filter_map(|(_, value)| value.as_deref());
            let parts = record.key.as_deref().into_iter().chain(record.payload.as_deref()).chain(headers);
            for part in parts {
                // A mark may be digits of what stands there as bytes.
                let text = format!("{} {}", String::from_utf8_lossy(part), hex::encode(part));
                found.extend(marked(topic.name(), &text, marks));
            }
        }
    }
    found
}

/// Of every role's own log.
pub fn in_logs(world: &World, marks: &[Mark]) -> Vec<String> {
    let roles = world.deployment.roles();
    let logs = roles.iter().flat_map(|(role, ..)| {
        let log = std::fs::read_to_string(world.deployment.log_file(role)).unwrap();
        log.lines().flat_map(|line| marked(role, line, marks)).collect::<Vec<_>>()
    });
    logs.collect()
}

/// Of every role's metrics.
pub fn in_metrics(world: &World, marks: &[Mark]) -> Vec<String> {
    let roles = world.deployment.roles();
    roles
        .iter()
        .flat_map(|(role, ..)| marked(role, &world.deployment.metrics(role).unwrap(), marks))
        .collect()
}

/// Of every document of the log collections.
pub fn in_documents(world: &World, marks: &[Mark]) -> Vec<String> {
    documents(world).iter().flat_map(|(name, document)| marked(name, &document.to_string(), marks)).collect()
}

/// Every document of the log collections, with its collection.
pub fn documents(world: &World) -> Vec<(&'static str, Document)> {
    let (uri, database) = world.mongodb();
    let config = MongoConfig { uri: uri.into(), database, timeout: std::time::Duration::from_secs(20) };
    world.block_on(async {
        let database = config.database().await.unwrap();
        let mut documents = Vec::new();
        for collection in schemas::logs::COLLECTIONS {
            let found = database.collection::<Document>(collection.name).find(Document::new()).await.unwrap();
            let found: Vec<Document> = found.try_collect().await.unwrap();
            documents.extend(found.into_iter().map(|document| (collection.name, document)));
        }
        documents
    })
}

/// Whether a field is there and not null.
pub fn is_filled(document: &Document, field: &str) -> bool {
    document.get(field).is_some_and(|value| *value != Bson::Null)
}
