//! Which node is followed, and how errors show. Time stands still and jumps to the next timer, so nothing waits.

use runtime::health::Health;
use runtime::metrics::Counter;
use runtime::testing::{MemoryOutbound, MemorySchemas};
use schemas::events::ActivityLogged;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Journal;
use crate::metrics::WatchMetrics;

/// A watcher that runs.
struct Running {
    gateway: MemoryGateway,
    metrics: WatchMetrics,
    retries: Counter<2>,
    health: Health,
    documents: Arc<MemoryOutbound>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start(nodes: Vec<MemoryNode>) -> Running {
    start_with(MemorySource::new(nodes))
}

fn start_with(source: MemorySource) -> Running {
    let (gateway, health, stop) = (MemoryGateway::default(), Health::default(), CancellationToken::new());
    let documents = Arc::new(MemoryOutbound::default());
    let schema = MemorySchemas::id_of::<ActivityLogged>();
    let watcher = watcher(&gateway).with_health(health.clone()).with_journal(Journal::new(
        documents.clone(),
        "",
        schema,
        "vechain_testnet",
    ));
    let metrics = watcher.metrics.clone();
    let retries = Metrics::register(&metrics.exporter).unwrap().retries;
    let stopped = stop.clone();
    let task = tokio::spawn(async move { watcher.run(&source, stopped).await });
    Running { gateway, metrics, retries, health, documents, stop, task }
}

impl Running {
    /// Lets so many seconds pass.
    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn errors(&self, label: &str) -> u64 {
        self.retries.with_label_values(&["watch", label]).get()
    }

    fn up(&self, node: &str) -> bool {
        self.metrics.node_up.with_label_values(&[node]).get() == 1
    }

    /// Documents that hold both texts.
    fn logged(&self, node: &str, status: &str) -> usize {
        let sent = self.documents.sent();
        let texts =
            sent.iter().map(|record| String::from_utf8_lossy(record.payload.as_ref().unwrap()).into_owned());
        texts.filter(|text| text.contains(node) && text.contains(&format!("\"{status}\""))).count()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.gateway.walked();
    }
}

fn refused() -> Ailment {
    Ailment::Fails(NodeError::Unavailable(Snippet::new("connection refused")))
}

#[tokio::test(start_paused = true)]
async fn the_next_node_takes_over_when_one_fails_or_hangs_or_serves_another_network_and_gives_way_when_it_is_back()
 {
    let wrong = Ailment::Fails(NodeError::WrongNetwork);
    let html = Ailment::Fails(NodeError::NotJson { status: 200, snippet: Snippet::new("<html>") });
    for (ailment, label) in
        [(refused(), "node"), (html, "node"), (wrong, "network"), (Ailment::Hangs, "slow")]
    {
        let first = MemoryNode::new();
        let second = first.sibling();
        let running = start(vec![first.clone(), second.clone()]);
        first.grow(3);
        running.pass(10).await;
        assert_eq!(running.gateway.tip(), first.best().to_string());
        assert!(running.up("0") && running.up("1") && running.health.is_ready());
        first.ails(Some(ailment));
        first.grow(3);
        running.pass(80).await;
        assert_eq!(running.gateway.tip(), first.best().to_string(), "{label}: the second node is followed");
        assert!(running.errors(label) > 0 && !running.up("0") && running.up("1"), "{label}");
        assert!(running.health.is_ready(), "{label}: one node is enough");
        // Back again, while the other goes away.
        first.ails(None);
        second.ails(Some(refused()));
        first.grow(3);
        running.pass(40).await;
        assert_eq!(
            running.gateway.tip(),
            first.best().to_string(),
            "{label}: the first node is followed again"
        );
        assert!(running.up("0"), "{label}");
        assert!(running.logged("node-0", "disconnected") == 1 && running.logged("node-0", "connected") >= 2);
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stands_still_gives_way_to_one_that_goes_on() {
    let (first, second) = (MemoryNode::new(), MemoryNode::new());
    first.grow(5);
    second.grow(5);
    let running = start(vec![first.clone(), second.clone()]);
    running.pass(10).await;
    second.grow(20);
    running.pass(80).await;
    assert_eq!(running.gateway.tip(), second.best().to_string());
    assert!(running.errors("behind") > 0 && !running.up("0"));
    first.grow(20);
    second.ails(Some(refused()));
    running.pass(40).await;
    first.grow(1);
    running.pass(5).await;
    assert_eq!(running.gateway.tip(), first.best().to_string());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_newest_block_is_old_gives_way_although_it_is_only_a_block_behind() {
    let (first, second) = (MemoryNode::new(), MemoryNode::new());
    first.grow(5);
    second.grow(6);
    first.ails(Some(Ailment::Stale));
    let running = start(vec![first, second.clone()]);
    running.pass(5).await;
    assert_eq!(running.gateway.tip(), second.best().to_string());
    assert!(running.errors("stale") > 0 && !running.up("0") && running.up("1"));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_holds_watching_up_for_two_seconds_and_the_next_takes_over_in_the_same_round() {
    let silent = MemoryNode::new();
    let well = silent.sibling();
    silent.ails(Some(Ailment::Hangs));
    well.grow(3);
    let running = start(vec![silent, well.clone()]);
    running.pass(3).await;
    assert_eq!(running.gateway.tip(), well.best().to_string());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_an_operator_sets_are_taken_up_without_a_restart_and_no_nodes_are_visible() {
    let (first, second) = (MemoryNode::new(), MemoryNode::new());
    first.grow(5);
    second.grow(7);
    let source = MemorySource::new(vec![first.clone(), first.sibling()]);
    let running = start_with(source.clone());
    running.pass(5).await;
    assert!(running.gateway.tip() == first.best().to_string() && running.up("1"));
    source.set(Ok(settings(vec![second.clone()])));
    running.pass(20).await;
    assert_eq!(running.gateway.tip(), second.best().to_string());
    assert!(running.up("0") && !running.up("1"), "the second one is gone");
    source.set(Err(SourceError::Later("postgres: gone".to_owned())));
    second.grow(1);
    running.pass(40).await;
    assert_eq!(running.gateway.tip(), second.best().to_string(), "what was read goes on to count");
    assert!(running.health.is_ready());
    source.set(Err(SourceError::Operator("no node is active".to_owned())));
    running.pass(20).await;
    second.grow(1);
    running.pass(20).await;
    assert_ne!(running.gateway.tip(), second.best().to_string());
    assert!(!running.health.is_ready());
    source.set(Ok(settings(vec![second.clone()])));
    running.pass(10).await;
    assert!(running.health.is_ready() && running.gateway.tip() == second.best().to_string());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_app_that_an_operator_corrects_is_looked_for_without_a_restart() {
    let node = MemoryNode::new();
    let other = AppId([9; 32]);
    node.tree.lock().unwrap().calls = Some(other);
    node.grow(3);
    let source = MemorySource::new(vec![node.clone()]);
    let running = start_with(source.clone());
    running.pass(5).await;
    let told = || {
        let steps = running.gateway.0.lock().unwrap().steps.clone();
        let adopted = steps.iter().filter_map(|step| match step {
            ChainStep::Adopted(block) => Some(block.transactions.len()),
            _ => None,
        });
        adopted.sum::<usize>()
    };
    assert_eq!(told(), 0, "the app of the rows is another one");
    let mut corrected = settings(vec![node.clone()]);
    corrected.watching.watched.app = other;
    source.set(Ok(corrected));
    running.pass(20).await;
    node.grow(2);
    running.pass(5).await;
    assert_eq!(told(), 2, "the blocks since; those before by an order");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_forks_before_all_that_is_remembered_is_visible_and_nothing_is_posted_of_it() {
    let node = MemoryNode::new();
    node.grow(500);
    let running = start(vec![node.clone()]);
    running.pass(60).await;
    let (walked, best) = (running.gateway.walked(), node.best());
    node.fork(450, 10);
    running.pass(600).await;
    assert_eq!(running.gateway.walked(), walked);
    let errors = running.errors("too_deep");
    assert!((10..60).contains(&errors), "{errors} looks in 10 minutes: it is retried, slowly");
    assert!(!running.health.is_ready() && !running.up("0") && running.logged("node-0", "failed") > 5);
    node.revive(best, 1);
    running.pass(60).await;
    assert_eq!(running.gateway.walked(), node.branch());
    assert!(running.health.is_ready() && running.up("0"));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refuses_is_visible_and_asked_again_until_an_operator_has_mended_it() {
    for status in [401, 403, 404] {
        let node = MemoryNode::new();
        let running = start(vec![node.clone()]);
        assert!(!running.health.is_ready(), "nothing was posted yet");
        node.grow(3);
        running.pass(5).await;
        assert!(running.health.is_ready());
        running.gateway.fails(Some(Fault::Refused(status)));
        node.grow(3);
        running.pass(300).await;
        assert!(!running.health.is_ready() && running.up("0"), "the node is not to blame");
        assert!((10..40).contains(&running.errors("refused")), "{}", running.errors("refused"));
        running.gateway.fails(None);
        running.pass(30).await;
        assert!(running.health.is_ready());
        assert_eq!(running.gateway.walked(), node.branch());
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_posted_is_counted() {
    let node = MemoryNode::new();
    node.grow(3);
    let running = start(vec![node.clone()]);
    running.pass(5).await;
    node.fork(1, 2);
    node.tree.lock().unwrap().finalized = 2;
    running.pass(5).await;
    let steps = |label: &str| running.metrics.steps.with_label_values(&[label]).get();
    let height = |label: &str| running.metrics.chain_block.with_label_values(&[label]).get();
    assert_eq!((steps("adopted"), steps("undone")), (6, 1));
    assert_eq!((height("watched"), height("watched_finalized")), (5, 2));
    let newest = running.metrics.block_timestamp.with_label_values(&[]).get();
    assert_eq!(newest, 1_700_000_050);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_of_two_nodes_alone_calls_final_is_told_as_final_to_nobody() {
    let (liar, node) = (MemoryNode::new(), MemoryNode::new());
    for (node, finalized) in [(&liar, 9), (&node, 2)] {
        node.grow(9);
        node.tree.lock().unwrap().finalized = finalized;
    }
    let running = start(vec![liar.clone(), node.clone()]);
    let told = || match running.gateway.0.lock().unwrap().steps.last() {
        Some(ChainStep::Adopted(block)) => (block.block.number, block.finalized_number),
        other => panic!("{other:?}"),
    };
    running.pass(5).await;
    assert_eq!(told(), (9, 2));
    // What was agreed before counts while the other gives no response.
    node.ails(Some(Ailment::Hangs));
    liar.grow(1);
    liar.tree.lock().unwrap().finalized = 10;
    running.pass(60).await;
    assert_eq!(told(), (10, 2));
    node.grow(1);
    node.ails(None);
    node.tree.lock().unwrap().finalized = 7;
    running.pass(60).await;
    for node in [&liar, &node] {
        node.grow(1);
    }
    running.pass(10).await;
    assert_eq!(told(), (11, 7));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_a_node_that_hangs_nor_become_ready_again() {
    let node = MemoryNode::new();
    node.ails(Some(Ailment::Hangs));
    let running = start(vec![node]);
    running.pass(3).await;
    let (health, before) = (running.health.clone(), Instant::now());
    running.end().await;
    assert!(before.elapsed() < Duration::from_secs(1) && !health.is_ready());
}

/// Counts what is logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn two_watchers_side_by_side_log_it_once_and_count_each_meeting() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let node = MemoryNode::new();
    let (gateway, stop) = (MemoryGateway::default(), CancellationToken::new());
    let (mut meetings, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let watcher = watcher(&gateway);
        meetings.push(watcher.retries.with_label_values(&["watch", "overtaken"]));
        let (node, stop) = (node.clone(), stop.clone());
        tasks.push(tokio::spawn(async move { watcher.run(&MemorySource::new(vec![node]), stop).await }));
    }
    for _ in 0..60 {
        node.grow(1);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(gateway.tip(), node.best().to_string(), "ten minutes of blocks, each posted once");
    let met: u64 = meetings.iter().map(|counter| counter.get()).sum();
    assert!(met >= 50, "the slower one met the other {met} times");
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.matches("another watcher is ahead").count() <= 2, "{text}");
    assert!(!text.contains("WARN") && text.lines().count() <= 6, "{text}");
}
