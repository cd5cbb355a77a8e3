//! A chain that has its first block only takes the contracts: Thor's genesis block allows 10,000,000 gas, every later one 40,000,000.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use chain::deploy::{Plan, SOLO_KEYS, deploy};
use chain::node::{Limits, Node, Revision};
use chain::{Signer, Wei};
use devstack::Stack;

/// Seconds between blocks: the first transactions are tried out, signed and posted well within them.
const BLOCK_SECONDS: u32 = 6;

#[test]
fn the_contracts_are_deployed_on_a_node_whose_best_block_is_genesis() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.local");
    let artifacts = harness::local_chain::compile(&root.join("contracts")).unwrap();
    let stack = Stack::start_slow_thor(&root, BLOCK_SECONDS, &|_| {}).unwrap();
    let node = Node::new(stack.thor_url(), None, Limits::default()).unwrap();
    let admin = Signer::from_hex(SOLO_KEYS[0]).unwrap();
    let plan = Plan {
        app_name: "young".to_owned(),
        distributor: Signer::from_hex(SOLO_KEYS[1]).unwrap().address(),
        funds: Wei::from_b3tr(1.into()).unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let best = node.block(Revision::Best).await.unwrap().unwrap();
        assert_eq!((best.number, best.gas_limit), (0, 10_000_000), "the node has its first block only");
        let deployment = deploy(&node, &artifacts, &admin, &plan).await.unwrap();
        assert!(deployment.is_on(&node).await.unwrap());
    });
}
