//! Which payouts a transaction may pay, so that nothing is planned that the policy would refuse.

use std::collections::HashMap;

use chain::{Address, Wei};
use chrono::{DateTime, Days, Utc};

use super::lease::Lease;
use super::obstacle::Obstacle;
use super::preflight::Preflight;
use super::settle::batch_size;
use super::{RoundError, Settings, Submitter, pool, sign};
use crate::chain_submission::ledger::rows::Payout;
use crate::chain_submission::ledger::transition::wei;

/// What is paid to whom.
type Payable<T> = Vec<(T, Address)>;

impl Submitter {
    /// Those of the ready payouts that the next transaction may pay, with their receivers: as many as a batch, the day and each receiver's
    /// day hold. What no day would hold, and what has no wallet, waits for a person.
    pub(super) async fn payable(
        &self,
        lease: &Lease,
        ready: Vec<Payout>,
        now: DateTime<Utc>,
    ) -> Result<Payable<Payout>, RoundError> {
        let Settings { terms, policy, batch_rewards, .. } = &self.settings;
        // Neither a day nor the policy would ever let it through.
        let pools = pool::pools(&mut *self.pool.acquire().await?, now).await?;
        let smallest = pools.iter().map(|pool| pool.ceiling).min();
        let largest =
            policy.largest_reward(smallest.map_or(terms.daily_ceiling, |pool| pool.min(terms.daily_ceiling)));
        let above = |payout: &Payout| wei(payout.amount_wei).is_none_or(|amount| amount > largest);
        let (too_large, mut affordable): (Vec<Payout>, Vec<Payout>) = ready.into_iter().partition(above);
        let why = format!(
            "above_ceiling: it exceeds {largest} wei, the least of chain.daily_ceiling, the ceilings in [signing] and the pools of the rules of rewards; raise that, then release it"
        );
        self.quarantine(lease, too_large, &why).await?;
        if affordable.is_empty() {
            return Ok(Vec::new());
        }
        let tightest = pool::tightest(pools);
        let pool_left = tightest.map_or(Wei::MAX, |pool| pool.left.unwrap_or_default());
        let of_day = sign::budget_left(&self.pool, now, terms).await?;
        let left = of_day.min(pool_left).min(policy.batch);
        let mut sum = Wei::ZERO;
        let splits = affordable.iter().map(|payout| payout.splits);
        affordable.truncate(batch_size(splits, *batch_rewards));
        affordable.retain(|payout| {
            let next = wei(payout.amount_wei).and_then(|amount| sum.checked_add(amount));
            let fits = next.is_some_and(|next| next <= left);
            sum = next.filter(|_| fits).unwrap_or(sum);
            fits
        });
        if affordable.is_empty() {
            let pool = tightest.filter(|_| pool_left < of_day).map(Obstacle::Pool);
            return Err(pool.unwrap_or(Obstacle::DailyCeiling(terms.daily_ceiling)).into());
        }
        let (payable, gone) = self.receivers(affordable).await?;
        self.quarantine(lease, gone, "invalid_receiver: its wallet is gone, or of another network").await?;
        self.within_receivers(lease, payable, now).await
    }

    /// Those that their receivers may still be paid in this day; the others wait until the next one begins.
    async fn within_receivers(
        &self,
        lease: &Lease,
        payable: Payable<Payout>,
        now: DateTime<Utc>,
    ) -> Result<Payable<Payout>, RoundError> {
        let ceiling = self.settings.policy.receiver;
        let receivers: Vec<Address> = payable.iter().map(|(_, receiver)| *receiver).collect();
        let received = sign::received(&self.pool, now, &receivers).await?;
        let (within, later) = split(payable, received, ceiling);
        let tomorrow = now.date_naive().checked_add_days(Days::new(1));
        let midnight = tomorrow.and_then(|day| day.and_hms_opt(0, 0, 0)).map(|at| at.and_utc());
        let mut changed = Vec::with_capacity(later.len());
        for (mut payout, receiver) in later {
            payout.revision += 1;
            payout.ready_at = midnight;
            payout.reason = Some(format!(
                "receiver_ceiling: {receiver} would be paid more than {ceiling} wei in this day"
            ));
            changed.push(payout);
        }
        self.change(lease, changed).await?;
        Ok(within)
    }

    /// Passes where the next block's price of gas may be offered.
    pub(super) fn afford_price(&self, found: &Preflight) -> Result<(), Obstacle> {
        let ceiling = self.settings.policy.gas_price;
        let price = found.base_fee.and_then(|fee| fee.checked_add(found.priority)).unwrap_or_default();
        if price > ceiling { Err(Obstacle::GasPrice { price, ceiling }) } else { Ok(()) }
    }
}

/// Those that fit, and those that do not, in order.
fn split<T>(
    payable: Payable<T>,
    mut received: HashMap<Address, Wei>,
    ceiling: Wei,
) -> (Payable<T>, Payable<T>)
where
    T: Amount,
{
    payable.into_iter().partition(|(payout, receiver)| {
        let of = received.entry(*receiver).or_default();
        let next = payout.amount().and_then(|amount| of.checked_add(amount)).filter(|next| *next <= ceiling);
        *of = next.unwrap_or(*of);
        next.is_some()
    })
}

/// Something that is worth wei of B3TR.
trait Amount {
    fn amount(&self) -> Option<Wei>;
}

impl Amount for Payout {
    fn amount(&self) -> Option<Wei> {
        wei(self.amount_wei)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Amount for u128 {
        fn amount(&self) -> Option<Wei> {
            Some(Wei::from(*self))
        }
    }

    #[test]
    fn a_receiver_is_paid_up_to_its_ceiling_and_a_smaller_reward_still_fits_behind_a_larger_one() {
        let [a, b] = [1, 2].map(|n| Address([n; 20]));
        let payable = vec![(40, a), (70, a), (60, a), (100, b), (1, b)];
        let (within, later) = split(payable, HashMap::from([(b, Wei::from(1))]), Wei::from(100));
        assert_eq!(within, [(40, a), (60, a), (1, b)]);
        assert_eq!(later, [(70, a), (100, b)]);
        let (within, _) = split(vec![(100_u128, a)], HashMap::new(), Wei::from(100));
        assert_eq!(within.len(), 1, "as much as the ceiling is allowed");
    }
}
