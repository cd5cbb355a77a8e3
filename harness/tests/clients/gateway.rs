//! A gateway whose producer fails for good.

use devstack::Part;
use harness::client::Photo;
use harness::deployment::{DeploymentConfig, make_folder, open_rates, sibling_binary};
use harness::scenario::driver_id;
use harness::{Client, Deployment, Posted, RoleSpec};

use crate::proxy::Proxy;
use crate::support::own;

/// `OUT_OF_ORDER_SEQUENCE_NUMBER`: what a broker says that has lost the end of its log. librdkafka takes it for fatal.
const OUT_OF_ORDER: u16 = 45;

#[test]
fn a_gateway_whose_producer_has_failed_for_good_builds_it_anew_and_publishes_the_photo_that_it_was_given() {
    let stack = own(&[Part::Kafka, Part::Registry, Part::Postgres]);
    let proxy = Proxy::to(stack.kafka_brokers());
    let mut settings = open_rates();
    settings.push(("KAFKA_BROKERS".into(), proxy.address()));
    let config = DeploymentConfig {
        program: sibling_binary("milestream").unwrap(),
        folder: make_folder(&stack.folder().join("gateway")).unwrap(),
        logs: stack.logs().join("gateway"),
        settings,
    };
    let mut deployment = Deployment::prepare(&stack, config).unwrap();
    deployment.start(RoleSpec::ingest()).unwrap();
    deployment.wait_ready().unwrap();
    proxy.fail_produce_once("uploads.received", OUT_OF_ORDER);
    let token = deployment.token(driver_id("gateway")).unwrap();
    let file = "../examples/photos/dark.jpg";
    let photo =
        Photo { file_name: "dark.jpg".into(), bytes: std::fs::read(file).unwrap(), ..Photo::default() };
    let client = Client::new(&deployment.gateway_url()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let posted = runtime.block_on(client.post(&token, &photo)).unwrap();
    assert_eq!(proxy.falsified(), 1);
    assert!(matches!(posted, Posted::Accepted { status: 202, .. }), "{posted:?}");
    let metrics = deployment.metrics("ingest").unwrap();
    let rebuilt = r#"milestream_client_rebuilds_total{cause="fatal",client="producer",stage="ingest"} 1"#;
    assert!(metrics.contains(rebuilt), "{metrics}");
    deployment.stop();
}
