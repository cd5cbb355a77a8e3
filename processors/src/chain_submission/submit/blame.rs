//! Whose fault it is when clauses fail: their own, or something that stops all of them. A clause's own fault ends in quarantine,
//! anything else stands in the way until it is gone.

use std::collections::HashMap;

use chain::abi::{Cause, Refusal};
use chain::node::{NodeError, Revision, Simulation, failing_clause};
use chain::{Address, BlockId, Clause, Node, UnsignedTx};

use super::obstacle::shared_cause;

/// The refusal that is no fault of the clauses: a text that this release does not know, on more than half of the `tried` clauses and
/// on two at least.
#[must_use]
pub fn shared_text<'a>(tried: usize, refusals: impl IntoIterator<Item = &'a Refusal>) -> Option<&'a Refusal> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    refusals.into_iter().filter(|refusal| refusal.cause == Cause::Other).find(|refusal| {
        let count = counts.entry(refusal.to_string()).or_default();
        *count += 1;
        *count >= 2 && *count * 2 > tried
    })
}

/// The clause that failed a transaction, with the contract's reason, by the state before its block; none where no clause fails there,
/// or where it fails for what is not its own.
///
/// # Errors
/// The node's.
pub async fn culprit(
    node: &Node,
    unsigned: &UnsignedTx,
    signer: Address,
    parent: BlockId,
) -> Result<Option<(usize, Refusal)>, NodeError> {
    let fails = async |clauses: &[Clause]| {
        let at = Revision::Id(parent);
        let simulation = Simulation { clauses, caller: signer, gas_payer: None, gas: None, at };
        node.simulate(&simulation).await.map(|outcomes| failing_clause(&outcomes))
    };
    let Some((at, refusal)) = fails(&unsigned.clauses).await? else { return Ok(None) };
    if shared_cause(&refusal, signer).is_some() {
        return Ok(None);
    }
    let mut others = unsigned.clauses.clone();
    others.remove(at);
    let same = |other: &Refusal| other.to_string() == refusal.to_string();
    // With the others alone: a text that another one meets as well says nothing of this one.
    let shared = refusal.cause == Cause::Other
        && !others.is_empty()
        && fails(&others).await?.is_some_and(|(_, other)| same(&other));
    Ok((!shared).then_some((at, refusal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A refusal with a text that no release knows.
    fn unknown(text: &str) -> Refusal {
        Refusal::decode(&[], text)
    }

    #[test]
    fn an_unknown_text_on_more_than_half_and_two_at_least_is_not_their_fault() {
        let (new, other) = (unknown("app is asleep"), unknown("out of gas"));
        assert_eq!(shared_text(5, [&new, &new, &new]), Some(&new));
        assert_eq!(shared_text(5, [&new, &other, &new, &new]), Some(&new));
        assert_eq!(shared_text(2, [&new, &new]), Some(&new));
        assert_eq!(shared_text(4, [&new, &new]), None, "half may be their own fault");
        assert_eq!(shared_text(1, [&new]), None, "of a single one nobody can tell by that alone");
        assert_eq!(shared_text(4, [&new, &other, &new, &other]), None);
    }
}
