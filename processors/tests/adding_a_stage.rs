//! `docs/adding-a-stage.md` shows files that compile, run, and are as short as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

/// What the example adds to `schemas`.
mod new_events {
    use std::sync::LazyLock;

    use apache_avro::Schema;
    use schemas::events::Event;
    use schemas::ids::{EventId, Micros, UploadId, UserId};
    use schemas::topic::Topic;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct DriverAdvised {
        pub event_id: EventId,
        pub user_id: UserId,
        pub upload_id: UploadId,
        pub occurred_at: Micros,
        pub advice: String,
    }

    impl Event for DriverAdvised {
        const NAME: &'static str = "milestream.DriverAdvised";
        // Stands in for `Topic::DriversAdvised`, which only the real diff adds to the closed enum.
        const TOPIC: Topic = Topic::AccountsChanged;

        fn schema() -> &'static Schema {
            static SCHEMA: LazyLock<Schema> =
                LazyLock::new(|| Schema::parse_str(DriverAdvised::schema_text()).unwrap());
            &SCHEMA
        }

        fn schema_text() -> &'static str {
            include_str!("../../docs/adding-a-stage/DriverAdvised.avsc")
        }

        fn event_id(&self) -> EventId {
            self.event_id
        }

        fn key(&self) -> String {
            self.user_id.to_string()
        }

        fn occurred_at(&self) -> Micros {
            self.occurred_at
        }
    }
}

#[path = "../../docs/adding-a-stage/driver_advice.rs"]
mod driver_advice;

use std::sync::Arc;
use std::time::Duration;

use driver_advice::DriverAdvice;
use new_events::DriverAdvised;
use runtime::Processor as _;
use runtime::pure::PureWorker;
use runtime::testing::{MemoryOutbound, assignment, record, stage_context};
use schemas::codec;
use schemas::events::{Event as _, UploadDecided};
use schemas::topic::{Topic, TopicSpec};
use support::examples;

const STAGE: &str = include_str!("../../docs/adding-a-stage/driver_advice.rs");
const SCHEMA: &str = include_str!("../../docs/adding-a-stage/DriverAdvised.avsc");
const SPEC: &str = include_str!("../../docs/adding-a-stage/drivers.advised.yaml");
const PAGE: &str = include_str!("../../docs/adding-a-stage.md");

#[test]
fn the_page_shows_the_very_files_and_the_stage_has_under_sixty_lines() {
    for file in [STAGE, SCHEMA, SPEC] {
        assert!(PAGE.contains(file.trim_end()), "docs/adding-a-stage.md differs from:\n{file}");
    }
    assert!(STAGE.lines().count() < 60);
    let spec: TopicSpec = serde_yaml_ng::from_str(SPEC).unwrap();
    assert_eq!(
        (spec.producers, spec.records),
        (vec![DriverAdvice::NAME.into()], vec![DriverAdvised::NAME.into()])
    );
}

#[test]
fn the_shown_row_stands_beside_rows_of_the_same_form() {
    let row = PAGE.lines().find(|line| line.contains("StageRow { name: \"driver_advice\"")).unwrap();
    let table = include_str!("../src/pipeline.rs");
    let form = |line: &str| line.replace(' ', "").split('"').step_by(2).collect::<Vec<_>>().len();
    let existing = table.lines().find(|line| line.contains("StageRow { name: \"quality_check\"")).unwrap();
    assert_eq!(form(row), form(existing));
}

#[tokio::test]
async fn the_shown_stage_runs_from_bytes_to_bytes() {
    let outbound = Arc::new(MemoryOutbound::default());
    let worker = PureWorker {
        processor: Arc::new(DriverAdvice),
        context: stage_context(DriverAdvice::NAME, outbound.clone()).unwrap(),
        output: "drivers.advised".into(),
        output_schema: 77,
        grace: Duration::ZERO,
    };
    let decided: Vec<UploadDecided> = examples(Topic::UploadsDecided)
        .into_iter()
        .filter(|example| !example.is_malformed())
        .map(|example| example.event())
        .collect();
    let records = (0..).zip(&decided).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment("uploads.decided", records)).await.unwrap();
    let sent = outbound.sent();
    assert_eq!(sent.len(), decided.len());
    for (record, event) in sent.iter().zip(&decided) {
        let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
        let advised: DriverAdvised = codec::decode(DriverAdvised::schema(), id, datum).unwrap();
        let expected = event.reason.map_or("Thank you: your reading counts.", |reason| reason.advice());
        assert_eq!((advised.upload_id, advised.advice.as_str()), (event.header.upload_id, expected));
    }
}
