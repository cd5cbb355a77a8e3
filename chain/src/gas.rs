//! The gas limit that a transaction asks for, from what its clauses used when they were tried out.

use crate::tx::TX_GAS;

/// Gas that a reward may cost more on the chain than in a simulation: a receiver's first action in a round costs about 100,000 more
/// than a repeated one, and the round may turn between the two.
pub const ROUND_TURN: u64 = 100_000;

/// Gas that no transaction may ask for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{tried} gas was used when it was tried out, and {most} is the most that may be asked for")]
pub struct GasTooLarge {
    /// Gas used in the trial, with the intrinsic gas.
    pub tried: u64,
    /// The most that may be asked for.
    pub most: u64,
}

/// The gas limit of a transaction that used `tried` gas in a simulation, intrinsic gas included: a fifth more, since storage that
/// others touch meanwhile can cost more, cut to `most`. Never below `tried`, which would run out of gas on the chain.
///
/// # Errors
/// [`GasTooLarge`] where `most` does not hold what was tried.
pub fn gas_limit(tried: u64, most: u64) -> Result<u64, GasTooLarge> {
    // A fifth of u64::MAX saturates, and is cut like every other.
    let wanted = tried.saturating_add(tried / 5);
    if tried > most { Err(GasTooLarge { tried, most }) } else { Ok(wanted.min(most)) }
}

/// The gas limit of a transaction that pays so many rewards: at least [`ROUND_TURN`] more for each, cut to `most`.
///
/// # Errors
/// [`GasTooLarge`] where `most` does not hold what was tried.
pub fn rewards_gas_limit(tried: u64, rewards: usize, most: u64) -> Result<u64, GasTooLarge> {
    let turned = tried.saturating_add(ROUND_TURN.saturating_mul(rewards as u64));
    Ok(gas_limit(tried, most)?.max(turned.min(most)))
}

/// How many rewards, in order, one transaction of at most `most` gas holds with all to spare that [`rewards_gas_limit`] adds; the first
/// alone may use that up. `clauses` is what each used in a simulation, with its intrinsic gas.
///
/// # Errors
/// [`GasTooLarge`] where `most` does not hold the first.
pub fn fitting(clauses: &[u64], most: u64) -> Result<usize, GasTooLarge> {
    let mut tried = TX_GAS;
    let fits = (1..).zip(clauses).take_while(|(rewards, gas)| {
        tried = tried.saturating_add(**gas);
        rewards_gas_limit(tried, *rewards, u64::MAX).is_ok_and(|wanted| wanted <= most)
    });
    match (clauses, fits.count()) {
        ([first, ..], 0) => gas_limit(TX_GAS.saturating_add(*first), most).map(|_| 1),
        (_, fits) => Ok(fits),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_genesis_block_of_ten_million_gas_holds_no_transaction_that_used_more() {
        let genesis = 10_000_000;
        assert_eq!(gas_limit(5_000_000, genesis), Ok(6_000_000));
        assert_eq!(gas_limit(9_000_000, genesis), Ok(genesis));
        assert_eq!(gas_limit(genesis, genesis), Ok(genesis));
        let refused = GasTooLarge { tried: genesis + 1, most: genesis };
        assert_eq!(gas_limit(genesis + 1, genesis), Err(refused));
    }

    proptest! {
        #[test]
        fn a_limit_is_never_below_what_was_tried_nor_above_what_may_be_asked_for(tried: u64, most: u64) {
            match gas_limit(tried, most) {
                Ok(limit) => {
                    prop_assert!((tried..=most).contains(&limit));
                    prop_assert!(limit - tried <= tried / 5);
                }
                Err(refused) => {
                    prop_assert!(tried > most);
                    prop_assert_eq!(refused, GasTooLarge { tried, most });
                }
            }
        }

        #[test]
        fn a_batch_is_as_long_as_it_fits_and_asks_for_no_less_than_its_clauses_used(
            clauses in prop::collection::vec(21_000_u64..3_000_000, 0..60),
            most in 0_u64..40_000_000,
        ) {
            let used = |count: usize| clauses[..count].iter().sum::<u64>() + TX_GAS;
            match fitting(&clauses, most) {
                Ok(0) => prop_assert!(clauses.is_empty()),
                Ok(count) => {
                    let limit = rewards_gas_limit(used(count), count, most).unwrap();
                    prop_assert!((used(count)..=most).contains(&limit));
                    let turned = used(count) + ROUND_TURN * count as u64;
                    prop_assert!(count == 1 || limit >= turned, "a round may turn under all of them");
                    let wanted = |count: usize| used(count) + (used(count) / 5).max(ROUND_TURN * count as u64);
                    let one_more = count < clauses.len() && wanted(count + 1) <= most;
                    prop_assert!(!one_more, "{count} of {} fit", clauses.len());
                }
                Err(refused) => prop_assert_eq!(refused, GasTooLarge { tried: used(1), most }),
            }
        }
    }
}
