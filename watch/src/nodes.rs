//! Which node is followed: the first by priority that responds as it should.

use std::time::Duration;

use tokio::time::Instant;

/// First rest of a node that failed.
const FIRST_REST: Duration = Duration::from_secs(2);
/// Longest rest: the preferred node is followed again at most this long after it has come back.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// How often a node that is not followed is asked for its best block, so that it is known to work before it is needed.
const PROBE: Duration = Duration::from_secs(60);
/// Blocks that a node may be behind another: 30 s of blocks that are merely on their way.
const BEHIND: u32 = 3;

/// What is known of each node, in the order of priority.
#[derive(Debug)]
pub(crate) struct Nodes(Vec<Standing>);

#[derive(Clone, Debug, Default)]
struct Standing {
    /// Until when it is left alone; none while it responds as it should.
    rests_until: Option<Instant>,
    /// Failures since it was last followed with success.
    failures: u32,
    /// Height of its best block when it last responded.
    best: Option<u32>,
    asked: Option<Instant>,
}

impl Nodes {
    /// So many nodes, none asked yet.
    pub(crate) fn new(count: usize) -> Self {
        Self(vec![Standing::default(); count])
    }

    /// The node to follow; none while all rest.
    pub(crate) fn preferred(&self) -> Option<usize> {
        self.0.iter().position(|node| node.rests_until.is_none())
    }

    /// Nodes to ask for their best block: those that have rested, and those that wait in reserve once per minute.
    pub(crate) fn due(&self, now: Instant) -> Vec<usize> {
        let preferred = self.preferred();
        let due = |(at, node): &(usize, &Standing)| match node.rests_until {
            Some(until) => until <= now,
            None => {
                Some(*at) != preferred
                    && node.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= PROBE)
            }
        };
        self.0.iter().enumerate().filter(due).map(|(at, _)| at).collect()
    }

    /// How long until a node has rested.
    pub(crate) fn rest(&self, now: Instant) -> Duration {
        let until = self.0.iter().filter_map(|node| node.rests_until).min();
        until.map_or(FIRST_REST, |until| until.saturating_duration_since(now))
    }

    /// A node gave its best block: it may be followed (again).
    pub(crate) fn responded(&mut self, at: usize, best: u32, now: Instant) {
        if let Some(node) = self.0.get_mut(at) {
            *node =
                Standing { rests_until: None, failures: node.failures, best: Some(best), asked: Some(now) };
        }
    }

    /// A node was followed with success: its next failure is the first again.
    pub(crate) fn worked(&mut self, at: usize) {
        if let Some(node) = self.0.get_mut(at) {
            node.failures = 0;
        }
    }

    /// A node failed: it rests, longer each time.
    pub(crate) fn failed(&mut self, at: usize, now: Instant) {
        if let Some(node) = self.0.get_mut(at) {
            let rest = FIRST_REST.saturating_mul(1 << node.failures.min(10)).min(LONGEST_REST);
            node.failures = node.failures.saturating_add(1);
            node.rests_until = Some(now + rest);
            node.asked = Some(now);
        }
    }

    /// The heights of a node and of another one, where the node is too far behind a node that responds.
    pub(crate) fn behind(&self, at: usize) -> Option<(u32, u32)> {
        let best = self.0.get(at)?.best?;
        let others = self.0.iter().filter(|node| node.rests_until.is_none());
        let other = others.filter_map(|node| node.best).max()?;
        (other > best.saturating_add(BEHIND)).then_some((best, other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_node_that_fails_gives_way_to_the_next_and_is_followed_again_once_it_responds() {
        let (mut nodes, now) = (Nodes::new(2), Instant::now());
        assert_eq!(nodes.preferred(), Some(0));
        nodes.failed(0, now);
        assert_eq!(nodes.preferred(), Some(1));
        nodes.responded(1, 7, now);
        assert_eq!(nodes.due(now + seconds(1)), Vec::<usize>::new());
        assert_eq!(nodes.due(now + seconds(2)), [0]);
        nodes.responded(0, 7, now + seconds(2));
        assert_eq!(nodes.preferred(), Some(0));
    }

    #[test]
    fn a_node_that_responds_but_cannot_be_followed_rests_longer_each_time_up_to_half_a_minute() {
        let (mut nodes, now) = (Nodes::new(1), Instant::now());
        let mut rests = Vec::new();
        for _ in 0..6 {
            nodes.failed(0, now);
            rests.push(nodes.rest(now).as_secs());
            nodes.responded(0, 7, now);
        }
        assert_eq!(rests, [2, 4, 8, 16, 30, 30]);
        nodes.worked(0);
        nodes.failed(0, now);
        assert_eq!((nodes.preferred(), nodes.rest(now)), (None, seconds(2)));
    }

    #[test]
    fn a_node_in_reserve_is_asked_once_a_minute() {
        let (mut nodes, now) = (Nodes::new(2), Instant::now());
        assert_eq!(nodes.due(now), [1]);
        nodes.responded(1, 7, now);
        assert_eq!(nodes.due(now + seconds(59)), Vec::<usize>::new());
        assert_eq!(nodes.due(now + seconds(60)), [1]);
    }

    #[test]
    fn a_node_is_behind_when_another_that_responds_is_more_than_three_blocks_ahead() {
        let (mut nodes, now) = (Nodes::new(2), Instant::now());
        nodes.responded(0, 100, now);
        assert_eq!(nodes.behind(0), None);
        nodes.responded(1, 103, now);
        assert_eq!(nodes.behind(0), None);
        nodes.responded(1, 104, now);
        assert_eq!((nodes.behind(0), nodes.behind(1)), (Some((100, 104)), None));
        nodes.failed(1, now);
        assert_eq!(nodes.behind(0), None, "what a failed node reported counts for nothing");
    }
}
