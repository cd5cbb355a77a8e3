//! Whom the passport of `VeBetterDAO` takes for a cheater is not paid: the reward waits, and the passport is asked again.

use chain::contract::{Standing, Standings};
use chain::node::Revision;
use chain::{Address, Node};
use chrono::{DateTime, TimeDelta, Utc};

use super::journal::Journal;
use super::lease::Lease;
use super::obstacle::Obstacle;
use super::{RoundError, Submitter};
use crate::chain_submission::ledger::rows::Payout;
use crate::chain_submission::network::Network;

/// How long a reward waits until the passport is asked about its receiver again; `milestream payouts retry` asks at once.
const ASK_AGAIN: TimeDelta = TimeDelta::hours(1);

impl Submitter {
    /// Those of the payouts of whose receivers the passport says nothing bad in the state `at`, which is that of the plan's block; the
    /// others wait, with what it says as their reason. All are where the network's rows name no passport. What would be paid to one of
    /// the network's own contracts waits for a person.
    pub(super) async fn in_good_standing(
        &self,
        lease: &Lease,
        journal: &mut Journal,
        (node, network, at): (&Node, &Network, Revision),
        payable: Vec<(Payout, Address)>,
    ) -> Result<Vec<(Payout, Address)>, RoundError> {
        let (ours, payable): (Vec<_>, Vec<_>) =
            payable.into_iter().partition(|(_, receiver)| network.is_contract(*receiver));
        let ours = ours.into_iter().map(|(payout, _)| payout).collect();
        self.quarantine(
            lease,
            ours,
            "invalid_receiver: its wallet is a contract of VeBetterDAO, where B3TR is lost",
        )
        .await?;
        let Some(passport) = network.passport else {
            if journal.first_without_passport() {
                tracing::warn!(
                    "no VeBetterPassport is among the network's contracts: nobody is asked for known cheaters"
                );
            }
            return Ok(payable);
        };
        if payable.is_empty() {
            return Ok(payable);
        }
        let mut receivers: Vec<Address> = payable.iter().map(|(_, receiver)| *receiver).collect();
        receivers.sort_unstable();
        receivers.dedup();
        let read = journal.contract_at(node, passport, at).standings(&receivers).await;
        let standings = journal.standings(&receivers, read).map_err(Obstacle::from)?;
        let again = self.clock.now().to_utc() + ASK_AGAIN;
        let (mut paid, mut changed) = (Vec::with_capacity(payable.len()), Vec::new());
        for (payout, receiver) in payable {
            let found = receivers.binary_search(&receiver).ok().and_then(|at| standings.of.get(at));
            match found.and_then(|standing| against(&standings, standing, receiver)) {
                None => paid.push((payout, receiver)),
                Some(why) => {
                    tracing::warn!(reward = %payout.reward_id, why, "the reward waits");
                    changed.push(withheld(payout, &why, again));
                }
            }
        }
        let count = u64::try_from(changed.len()).unwrap_or(0);
        self.change(lease, changed).await?;
        self.metrics.payout_steps.with_label_values(&["withheld"]).inc_by(count);
        Ok(paid)
    }
}

/// What speaks against paying a receiver.
fn against(standings: &Standings, standing: &Standing, receiver: Address) -> Option<String> {
    let Standing { signals, .. } = standing;
    if standing.blacklisted {
        Some(format!("blacklisted: VeBetterPassport lists {receiver} as a cheater"))
    } else if standings.is_reported(standing) {
        let most = standings.threshold;
        Some(format!(
            "signaled: VeBetterPassport takes {receiver} for a bot, by {signals} reports where {most} are enough"
        ))
    } else {
        None
    }
}

/// It stays ready, and is planned no sooner than `again`.
fn withheld(mut payout: Payout, why: &str, again: DateTime<Utc>) -> Payout {
    payout.revision += 1;
    payout.ready_at = Some(again);
    payout.reason = Some(format!("{why}; it is asked again after {}", again.format("%FT%H:%M:%SZ")));
    payout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_receiver_and_one_that_is_reported_often_enough_are_told_apart() {
        let standings = Standings { threshold: 2, of: Vec::new() };
        let why = |blacklisted, signals| {
            let standing = Standing { blacklisted, whitelisted: false, signals };
            against(&standings, &standing, Address([7; 20]))
                .map(|why| why.split(':').next().unwrap().to_owned())
        };
        assert_eq!(why(true, 9).as_deref(), Some("blacklisted"));
        assert_eq!(why(false, 2).as_deref(), Some("signaled"));
        assert_eq!(why(false, 1), None);
    }
}
