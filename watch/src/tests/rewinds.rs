//! Blocks that are told again: nothing of them was told while another app was looked for.

use proptest::prelude::*;

use super::*;
use crate::Rewind;

const OTHER: AppId = AppId([9; 32]);

fn rewinding(order: i64, to: u32) -> Watching {
    Watching {
        watched: Watched { app: OTHER, ..WATCHING.watched },
        token: None,
        rewind: Some(Rewind { order, to }),
    }
}

/// Heights of the blocks of which a transaction was told, in order, each told again or not.
fn told(gateway: &MemoryGateway) -> Vec<(i64, bool)> {
    let steps = gateway.0.lock().unwrap().steps.clone();
    let adopted = steps.iter().filter_map(|step| match step {
        ChainStep::Adopted(step) if !step.transactions.is_empty() => Some((step.block.number, step.retold)),
        _ => None,
    });
    adopted.collect()
}

async fn settle_on(watching: Watching, watcher: &mut Watcher<MemoryGateway>, node: &MemoryNode) {
    for _ in 0..1_000 {
        if matches!(watcher.look(node, watching).await, Ok(0)) {
            return;
        }
    }
    panic!("watching does not end");
}

#[test]
fn payments_that_landed_untold_are_told_once_an_operator_rewinds_and_each_order_is_carried_out_once() {
    run(async {
        let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
        node.tree.lock().unwrap().calls = Some(OTHER);
        node.grow(500);
        let mut first = watcher(&gateway);
        settle(&mut first, &node).await;
        assert_eq!(told(&gateway), [], "the app of the rows was another one");
        node.tree.lock().unwrap().finalized = 480;
        settle_on(rewinding(1, 20), &mut first, &node).await;
        let expected: Vec<(i64, bool)> = (21..=500).map(|number| (number, true)).collect();
        assert_eq!(told(&gateway), expected, "also blocks that are long forgotten");
        assert_eq!(gateway.walked(), node.branch());
        // Neither a later look nor another watcher tells them a second time, and new blocks are told as ever.
        settle_on(rewinding(1, 20), &mut watcher(&gateway), &node).await;
        assert_eq!(told(&gateway).len(), expected.len());
        node.grow(1);
        settle_on(rewinding(1, 20), &mut watcher(&gateway), &node).await;
        assert_eq!(told(&gateway).last(), Some(&(501, false)));
        settle_on(rewinding(2, 499), &mut first, &node).await;
        assert_eq!(told(&gateway)[expected.len() + 1..], [(500, true), (501, true)]);
    });
}

#[test]
fn a_block_that_is_forgotten_and_not_final_by_the_node_is_not_told_from_its_branch() {
    run(async {
        let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
        node.grow(500);
        let mut watcher = watcher(&gateway);
        settle(&mut watcher, &node).await;
        node.tree.lock().unwrap().finalized = 10;
        let error = watcher.look(&node, rewinding(1, 10)).await.unwrap_err();
        assert_eq!(error.label(), "moved");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is lost, forks and dies meanwhile: every block that counts after the ordered height is told with its transaction.
    #[test]
    fn a_rewind_survives_forks_lost_posts_and_restarts(
        grown in 1_u32..120,
        to in 0_u32..100,
        events in prop::collection::vec(0_u8..5, 0..12),
    ) {
        let to = to.min(grown - 1);
        run(async {
            let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
            node.tree.lock().unwrap().calls = Some(OTHER);
            node.grow(grown);
            let mut watcher = watcher(&gateway);
            settle(&mut watcher, &node).await;
            for event in events {
                match event {
                    0 => node.grow(2),
                    1 => node.fork(3.min(node.branch().len() - 1), 1),
                    2 => gateway.fails(Some(Fault::Lost)),
                    3 => gateway.fails(Some(Fault::AnswerLost)),
                    _ => watcher = self::watcher(&gateway),
                }
                let _ = watcher.look(&node, rewinding(1, to)).await;
            }
            settle_on(rewinding(1, to), &mut watcher, &node).await;
            assert_eq!(gateway.walked(), node.branch());
            let steps = gateway.0.lock().unwrap().steps.clone();
            for id in &node.branch()[to as usize + 1..] {
                let told = steps.iter().any(|step| {
                    matches!(step, ChainStep::Adopted(step) if step.block.id == *id && !step.transactions.is_empty())
                });
                assert!(told, "{id} is untold");
            }
        });
    }
}
