//! What the gateway was sent is one walk on the chain, whatever happens.

use futures::poll;
use proptest::prelude::*;

use super::*;
use crate::WatchError;
use crate::watcher::BATCH;

#[test]
fn a_response_that_was_lost_repeats_no_step_and_loses_none() {
    run(async {
        let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
        for fault in [Fault::Lost, Fault::AnswerLost] {
            node.grow(3);
            let mut first = watcher(&gateway);
            gateway.fails(Some(fault));
            assert!(first.look(&node, WATCHING).await.is_err());
            // Another life goes on.
            settle(&mut watcher(&gateway), &node).await;
            settle(&mut first, &node).await;
            assert_eq!(gateway.walked(), node.branch(), "{fault:?}");
        }
    });
}

#[test]
fn a_watcher_that_is_killed_at_any_point_of_a_look_repeats_no_step_and_loses_none() {
    let mut points = 0;
    for polls in 0.. {
        let finished = run(async {
            let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
            node.grow(2);
            settle(&mut watcher(&gateway), &node).await;
            node.fork(1, 2);
            let mut first = watcher(&gateway);
            let finished = {
                let mut look = Box::pin(first.look(&node, WATCHING));
                let mut finished = false;
                for _ in 0..polls {
                    finished = poll!(&mut look).is_ready();
                }
                finished
            };
            // The process is gone with the look, or only the look is.
            for watcher in [&mut watcher(&gateway), &mut first] {
                settle(watcher, &node).await;
                assert_eq!(gateway.walked(), node.branch(), "killed after {polls} polls");
            }
            assert_eq!(gateway.0.lock().unwrap().steps.len(), 2 + 1 + 3);
            finished
        });
        points += 1;
        if finished {
            break;
        }
    }
    assert!(points > 10, "{points} points: questions suspend the look");
}

#[test]
fn a_chain_longer_than_a_look_is_posted_in_several() {
    run(async {
        let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
        node.grow(3 * BATCH + 5);
        let mut watcher = watcher(&gateway);
        assert_eq!(watcher.look(&node, WATCHING).await.unwrap(), BATCH as usize);
        settle(&mut watcher, &node).await;
        assert_eq!(gateway.walked(), node.branch());
    });
}

#[test]
fn a_fork_longer_than_a_batch_is_posted_in_several_any_of_which_can_be_the_last_before_the_old_branch_wins() {
    run(async {
        for lost in 0..4 {
            let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
            let mut watcher = watcher(&gateway);
            node.grow(200);
            settle(&mut watcher, &node).await;
            let old = node.best();
            gateway.0.lock().unwrap().batches.clear();
            node.fork(150, 10);
            let mut look = Box::pin(watcher.look(&node, WATCHING));
            while gateway.0.lock().unwrap().batches.len() < lost {
                if poll!(&mut look).is_ready() {
                    break;
                }
            }
            drop(look);
            assert!(gateway.0.lock().unwrap().batches.iter().all(|steps| *steps <= 128));
            node.revive(old, 3);
            settle(&mut watcher, &node).await;
            assert_eq!(gateway.walked(), node.branch(), "after {lost} batches");
        }
    });
}

#[test]
fn a_batch_of_another_watcher_under_the_same_numbers_is_never_taken_for_ours() {
    run(async {
        let (gateway, node, other) = (MemoryGateway::default(), MemoryNode::new(), MemoryNode::new());
        let mut watchers = [watcher(&gateway), watcher(&gateway)];
        node.grow(4);
        for watcher in &mut watchers {
            settle(watcher, &node).await;
        }
        // Each follows its own branch from here, under the same numbers.
        let parents = node.tree.lock().unwrap().parents.clone();
        *other.tree.lock().unwrap() =
            Tree { parents, best: node.best(), made: 50, finalized: 0, calls: None };
        node.grow(2);
        other.grow(2);
        let [first, second] = &mut watchers;
        assert_eq!(first.look(&node, WATCHING).await.unwrap(), 2);
        assert!(matches!(second.look(&other, WATCHING).await, Err(WatchError::Overtaken)));
        settle(second, &other).await;
        assert_eq!(gateway.walked(), other.branch());
    });
}

#[test]
fn a_first_start_begins_after_the_block_that_is_named_or_the_newest_final_one_below() {
    run(async {
        for (start, finalized, begins) in [(5, 20, 5), (5, 5, 5), (5, 3, 3), (5, 0, 0)] {
            let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
            node.grow(10);
            node.tree.lock().unwrap().finalized = finalized;
            let mut watcher = starting_after(start, &gateway);
            settle(&mut watcher, &node).await;
            let at = node.tree.lock().unwrap().branch()[begins];
            assert_eq!(gateway.walked_from(at), node.branch()[begins..]);
        }
        let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
        node.tree.lock().unwrap().finalized = 9;
        assert!(matches!(
            starting_after(5, &gateway).look(&node, WATCHING).await,
            Err(WatchError::NoStart(5))
        ));
    });
}

#[test]
fn a_chain_with_another_first_block_is_not_begun() {
    run(async {
        let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
        node.grow(3);
        let mut watcher = watcher(&gateway);
        let elsewhere = id(0, 7);
        *node.tree.lock().unwrap() = Tree {
            parents: BTreeMap::from([(elsewhere, BlockId([0xff; 32]))]),
            best: elsewhere,
            made: 9,
            finalized: 0,
            calls: None,
        };
        assert_eq!(watcher.look(&node, WATCHING).await.unwrap_err().label(), "network");
        assert!(gateway.0.lock().unwrap().steps.is_empty());
    });
}

/// What happens in the middle of a look.
#[derive(Clone, Debug)]
enum Interruption {
    /// Nothing.
    None,
    /// The process dies after so many polls, and starts anew.
    Death(usize),
    /// The chain forks after so many polls.
    Fork(usize, usize, u32),
    /// The other watcher looks after so many polls.
    Overtaking(usize),
}

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    Grow(u32),
    Fork(usize, u32),
    Revive(prop::sample::Index, u32),
    /// One of the watchers looks.
    Look(bool, Interruption),
    Fail(bool),
}

fn interruption() -> impl Strategy<Value = Interruption> {
    prop_oneof![
        Just(Interruption::None),
        (0_usize..40).prop_map(Interruption::Death),
        (0_usize..40, 1_usize..6, 1_u32..4)
            .prop_map(|(polls, back, more)| Interruption::Fork(polls, back, more)),
        (0_usize..40).prop_map(Interruption::Overtaking),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1_u32..5).prop_map(Event::Grow),
        2 => (1_usize..6, 1_u32..4).prop_map(|(back, more)| Event::Fork(back, more)),
        1 => (any::<prop::sample::Index>(), 1_u32..4).prop_map(|(from, more)| Event::Revive(from, more)),
        6 => (any::<bool>(), interruption()).prop_map(|(who, what)| Event::Look(who, what)),
        1 => any::<bool>().prop_map(Event::Fail),
    ]
}

async fn look(
    who: usize,
    interruption: &Interruption,
    watchers: &mut [Watcher<MemoryGateway>; 2],
    gateway: &MemoryGateway,
    node: &MemoryNode,
) {
    let [first, second] = watchers;
    let (watcher_, other) = if who == 0 { (first, second) } else { (second, first) };
    let mut look = Box::pin(watcher_.look(node, WATCHING));
    let polls = match interruption {
        Interruption::None => usize::MAX,
        Interruption::Death(polls) | Interruption::Fork(polls, ..) | Interruption::Overtaking(polls) => {
            *polls
        }
    };
    for _ in 0..polls {
        if poll!(&mut look).is_ready() {
            return;
        }
    }
    match interruption {
        Interruption::Death(_) => {
            drop(look);
            *watcher_ = watcher(gateway);
            return;
        }
        Interruption::Fork(_, back, more) => node.fork(*back, *more),
        Interruption::Overtaking(_) => _ = other.look(node, WATCHING).await,
        Interruption::None => {}
    }
    _ = look.await;
}

proptest! {
    #[test]
    fn two_watchers_with_any_forks_and_deaths_post_one_walk_that_ends_at_the_best_block(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let (gateway, node) = (MemoryGateway::default(), MemoryNode::new());
        run(async {
            let mut watchers = [watcher(&gateway), watcher(&gateway)];
            for event in &events {
                match event {
                    Event::Grow(count) => node.grow(*count),
                    Event::Fork(back, more) => node.fork(*back, *more),
                    Event::Revive(from, more) => {
                        let ids: Vec<_> = node.tree.lock().unwrap().parents.keys().copied().collect();
                        node.revive(*from.get(&ids), *more);
                    }
                    Event::Look(who, what) => look((*who).into(), what, &mut watchers, &gateway, &node).await,
                    Event::Fail(arrives) => {
                        gateway.fails(Some(if *arrives { Fault::AnswerLost } else { Fault::Lost }));
                    }
                }
                // At every moment what was taken is a valid walk.
                gateway.walked();
            }
            for watcher in &mut watchers {
                settle(watcher, &node).await;
            }
        });
        prop_assert_eq!(gateway.walked(), node.branch());
    }
}
