//! The whole watcher against a real Thor solo node and an in-process gateway that checks signatures and keeps the real one's rules.
//! `THOR_URL` names the node, e.g. `http://127.0.0.1:8669`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chain::deploy::{Operator, SOLO_KEYS};
use chain::node::{Limits, Receipt, Revision};
use chain::{Address, AppId, BlockId, Clause, Node, Signer};
use runtime::SystemClock;
use runtime::metrics::Metrics;
use runtime::signature::{SIGNATURE_HEADER, TIME_HEADER, is_signed};
use schemas::payouts::{BlockAdopted, ChainBatch, ChainResponse, ChainStep, StepOutcome, StepResult};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use warp::Filter as _;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;
use watch::{HttpGateway, Settings, Source, SourceError, Watched, Watcher, WatcherConfig, Watching};

const SECRET: &str = "a secret of thirty-two characters";
/// Longest wait for a block of a node that makes one every 10 s at most.
const LIMIT: Duration = Duration::from_secs(180);

/// The gateway's memory.
#[derive(Clone, Default)]
struct Gateway {
    steps: Arc<Mutex<Vec<ChainStep>>>,
    checkpoint: Arc<Mutex<Option<serde_json::Value>>>,
    news: Arc<Notify>,
}

impl Gateway {
    /// Its address.
    async fn serve(&self) -> String {
        let gateway = self.clone();
        let route = warp::path!("v1" / "chain" / "events")
            .and(warp::post())
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .map(move |headers: HeaderMap, body: Bytes| gateway.take(&headers, &body));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(route).incoming(listener).run());
        format!("http://{address}")
    }

    fn take(&self, headers: &HeaderMap, body: &[u8]) -> Response {
        let status = |code: StatusCode| {
            let mut response = Response::default();
            *response.status_mut() = code;
            response
        };
        let (time, signature) =
            (headers[TIME_HEADER].to_str().unwrap(), headers[SIGNATURE_HEADER].to_str().unwrap());
        if !is_signed(&SecretString::from(SECRET), time, body, signature) {
            return status(StatusCode::UNAUTHORIZED);
        }
        let batch: ChainBatch = serde_json::from_slice(body).unwrap();
        let mut steps = self.steps.lock().unwrap();
        let highest = i64::try_from(steps.len()).unwrap();
        let first = batch.steps.first().map_or(highest + 1, ChainStep::seq);
        if first > highest + 1 {
            return status(StatusCode::CONFLICT);
        }
        let outcome = if first <= highest { StepOutcome::Duplicate } else { StepOutcome::Accepted };
        let results = batch.steps.iter().map(|step| StepResult { seq: step.seq(), outcome }).collect();
        if outcome == StepOutcome::Accepted && !batch.steps.is_empty() {
            steps.extend(batch.steps);
            *self.checkpoint.lock().unwrap() = batch.checkpoint;
            self.news.notify_one();
        }
        let highest_seq = i64::try_from(steps.len()).unwrap();
        let checkpoint = self.checkpoint.lock().unwrap().clone();
        Response::new(serde_json::to_vec(&ChainResponse { results, highest_seq, checkpoint }).unwrap().into())
    }

    /// The blocks that were adopted, in order: a single node undoes nothing.
    fn adopted(&self) -> Vec<BlockAdopted> {
        let steps = self.steps.lock().unwrap();
        let adopted = steps.iter().zip(1..).map(|(step, seq)| {
            assert_eq!((step.seq(), step.event_id()), (seq, step.derived_id()));
            match step {
                ChainStep::Adopted(block) => block.clone(),
                ChainStep::Undone(block) => panic!("a single node undoes nothing: {block:?}"),
            }
        });
        adopted.collect()
    }

    /// The block of a transaction, once it was posted.
    async fn posted(&self, receipt: &Receipt) -> BlockAdopted {
        let wanted = receipt.meta.block_id.to_string();
        let wait = async {
            loop {
                if let Some(block) = self.adopted().into_iter().find(|block| block.block.id == wanted) {
                    return block;
                }
                self.news.notified().await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect("the block is posted")
    }
}

fn node(genesis: Option<BlockId>) -> Node {
    let url = std::env::var("THOR_URL").expect("THOR_URL must name a Thor solo node");
    Node::new(&url, genesis, Limits::default()).expect("THOR_URL is an http address")
}

/// Settings that stay.
struct Fixed(Settings<Node>);

impl Source for Fixed {
    type Chain = Node;

    async fn load(&self) -> Result<Settings<Node>, SourceError> {
        Ok(self.0.clone())
    }
}

/// One life of a watcher, until `work` is done.
async fn watching<T>(
    (config, watched): (WatcherConfig, Watched),
    url: &str,
    work: impl Future<Output = T>,
) -> T {
    let stop = CancellationToken::new();
    let gateway = HttpGateway::new(url, SecretString::from(SECRET)).unwrap();
    let watcher =
        Watcher::new(config.clone(), gateway, Arc::new(SystemClock), &Metrics::new().unwrap()).unwrap();
    // The preferred node refuses connections: port 1 is not in use.
    let dead = Node::new("http://127.0.0.1:1", Some(config.genesis), Limits::default()).unwrap();
    let source = Fixed(Settings {
        watching: Watching { watched, token: None, rewind: None },
        urls: vec!["dead".to_owned(), "alive".to_owned()],
        nodes: vec![dead, node(Some(config.genesis))],
    });
    let watch = watcher.run(&source, stop.clone());
    let work = async {
        let done = work.await;
        stop.cancel();
        done
    };
    tokio::join!(watch, work).1
}

#[tokio::test]
async fn a_real_chain_is_posted_block_by_block_through_a_dead_node_and_a_restart() {
    let node = node(None);
    let signer = Signer::from_hex(SOLO_KEYS[2]).unwrap();
    let operator = Operator::new(&node, &signer).await.unwrap();
    // An address without code takes any call: the transaction calls "the pool" for the app and logs nothing.
    let watched = Watched { pool: Address(rand::random()), app: AppId(rand::random()) };
    let call = [[1, 2, 3, 4].as_slice(), watched.app.as_bytes()].concat();
    let first = operator.send("calling", vec![Clause::call(watched.pool, call.clone())]).await.unwrap();
    let config =
        WatcherConfig { genesis: operator.genesis(), poll: Duration::from_millis(200), start_block: 0 };
    let gateway = Gateway::default();
    let url = gateway.serve().await;
    let block = watching((config.clone(), watched), &url, gateway.posted(&first)).await;
    assert_eq!(block.transactions.len(), 1);
    assert_eq!(block.transactions[0].id, first.meta.tx_id.to_string());
    assert_eq!(block.transactions[0].origin, signer.address().to_string());
    assert_eq!(block.transactions[0].gas_used, i64::try_from(first.gas_used).unwrap());
    // Another life goes on where the first ended, through a block that has nothing to do with the app.
    let block = watching((config.clone(), watched), &url, async {
        let other =
            operator.send("moving", vec![Clause::call(Address(rand::random()), vec![])]).await.unwrap();
        gateway.posted(&other).await
    });
    assert!(block.await.transactions.is_empty());
    let adopted = gateway.adopted();
    let mut parent = config.genesis.to_string();
    for (block, number) in adopted.iter().zip(1_u32..) {
        assert_eq!(
            (&block.parent_id, block.block.number),
            (&parent, i64::from(number)),
            "no block is left out"
        );
        parent.clone_from(&block.block.id);
        let real = node.block(Revision::Number(number)).await.unwrap().unwrap();
        assert_eq!(real.id.to_string(), block.block.id);
        assert_eq!(i64::try_from(real.timestamp).unwrap() * 1_000_000, block.block.timestamp.0);
    }
}
