//! What logs to ask a node for.

use serde_json::{Value, json};

use crate::id::{Address, Word};

/// Logs that a node gives in one response at most (`--api-logs-limit`, 1000 by default).
pub const MAX_PAGE: u32 = 1_000;

/// Criteria that a node takes in one question (`api/events`: 10).
pub const MAX_CRITERIA: usize = 10;

/// Order of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// Logs that fit all parts given.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Criterion {
    /// The contract.
    pub address: Option<Address>,
    /// Topics by place: the event's signature, then its indexed arguments.
    pub topics: [Option<Word>; 5],
}

/// Logs that fit any of the criteria (all logs without one), in a range of blocks, one page of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// At most [`MAX_CRITERIA`].
    pub criteria: Vec<Criterion>,
    /// First block.
    pub from_block: u32,
    /// Last block.
    pub to_block: u32,
    /// Logs to skip; a node takes up to 100,000.
    pub offset: u32,
    /// Logs to give; at most [`MAX_PAGE`].
    pub limit: u32,
    /// Order of the response.
    pub order: Order,
}

impl EventFilter {
    /// The first page of the logs of blocks `from_block..=to_block`, oldest first.
    #[must_use]
    pub fn blocks(from_block: u32, to_block: u32, criteria: Vec<Criterion>) -> Self {
        Self { criteria, from_block, to_block, offset: 0, limit: MAX_PAGE, order: Order::Ascending }
    }

    pub(super) fn to_json(&self) -> Value {
        let criteria: Vec<_> = self.criteria.iter().map(criterion_json).collect();
        let order = match self.order {
            Order::Ascending => "asc",
            Order::Descending => "desc",
        };
        json!({
            "criteriaSet": criteria,
            "range": { "unit": "block", "from": self.from_block, "to": self.to_block },
            // Indexes give where in its block a log stands, which makes its key.
            "options": { "offset": self.offset, "limit": self.limit, "includeIndexes": true },
            "order": order,
        })
    }
}

/// The node's JSON is strict and takes no null: only what is given is named.
fn criterion_json(criterion: &Criterion) -> Value {
    let mut object = json!({});
    if let Some(address) = criterion.address {
        object["address"] = address.to_string().into();
    }
    for (place, topic) in criterion.topics.iter().enumerate() {
        if let Some(topic) = topic {
            object[format!("topic{place}")] = topic.to_string().into();
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_only_what_is_given() {
        let criterion = Criterion {
            address: Some(Address([1; 20])),
            topics: [None, Some(Word([2; 32])), None, None, None],
        };
        let json = EventFilter::blocks(5, 9, vec![criterion]).to_json();
        assert_eq!(
            json["criteriaSet"],
            json!([{ "address": Address([1; 20]).to_string(), "topic1": Word([2; 32]).to_string() }])
        );
        assert_eq!(json["range"], json!({ "unit": "block", "from": 5, "to": 9 }));
        assert_eq!(json["options"], json!({ "offset": 0, "limit": 1000, "includeIndexes": true }));
    }
}
