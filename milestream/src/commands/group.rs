//! The stages and sinks as operators name them: each is a consumer group.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use processors::pipeline::{Kind, STAGES};
use runtime::Sink as _;
use schemas::topic::Topic;
use sinks::analytics::AnalyticsSink;
use sinks::mongo::MongoSink;
use sinks::postgres::PostgresSink;

use crate::config::Config;
use crate::roles::SINKS;

/// Names of every stage and sink.
pub fn names() -> impl Iterator<Item = &'static str> {
    STAGES.iter().map(|row| row.name).chain(SINKS)
}

/// A stage or sink.
#[derive(Debug, Args)]
pub struct Group {
    /// A stage or sink.
    #[arg(value_name = "STAGE", value_parser = PossibleValuesParser::new(names()))]
    pub stage: String,
}

impl Group {
    /// The consumer group's name.
    pub fn id(&self, config: &Config) -> String {
        format!("{}{}", config.kafka.topic_prefix, self.stage)
    }

    /// The topics that it reads.
    pub fn topics(&self) -> &'static [Topic] {
        match self.stage.as_str() {
            PostgresSink::NAME => PostgresSink::TOPICS,
            MongoSink::NAME => MongoSink::TOPICS,
            AnalyticsSink::NAME => AnalyticsSink::TOPICS,
            stage => STAGES.iter().find(|row| row.name == stage).map_or(&[], |row| row.inputs),
        }
    }

    /// The topic of this name that it reads, and its name in Kafka.
    pub fn topic(&self, name: &str, config: &Config) -> Result<(Topic, String)> {
        let (name, topics) = (plain(name, config), self.topics());
        let Some(topic) = topics.iter().find(|topic| topic.name() == name) else {
            let names: Vec<_> = topics.iter().map(|topic| topic.name()).collect();
            bail!("{} does not read {name}: it reads {}", self.stage, names.join(", "))
        };
        Ok((*topic, prefixed(topic.name(), config)))
    }

    /// Whether it decides under a fence, so that its offset follows from its decisions.
    pub fn decides(&self) -> bool {
        STAGES.iter().any(|row| row.name == self.stage && row.kind == Kind::Deciding)
    }
}

/// A topic's name in Kafka.
pub fn prefixed(topic: &str, config: &Config) -> String {
    format!("{}{}", config.kafka.topic_prefix, plain(topic, config))
}

/// The name without the environment's prefix, which messages and logs have in front of it.
fn plain<'a>(topic: &'a str, config: &Config) -> &'a str {
    topic.strip_prefix(&config.kafka.topic_prefix).unwrap_or(topic)
}

/// The topic of this name.
pub fn topic_named(name: &str, config: &Config) -> Result<Topic> {
    let name = plain(name, config);
    let found = Topic::ALL.into_iter().find(|topic| topic.name() == name);
    found.with_context(|| {
        let names = Topic::ALL.map(Topic::name).join(", ");
        format!("there is no topic {name:?}: choose one of {names}")
    })
}
