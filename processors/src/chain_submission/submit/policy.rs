//! What may be signed. It stands in front of every signer and believes nothing but the transaction that is about to be signed: contracts,
//! methods, receivers and amounts are read from the clauses' bytes. Only what passed it, a [`Permitted`], can be signed.

use std::collections::HashMap;

use chain::abi::RewardCall;
use chain::signing::{self, SignError, TransactionSigner};
use chain::{Address, AppId, Fees, SignedTx, UnsignedTx, Wei};

/// Bounds in wei of B3TR unless they say otherwise; each amount may be as large as its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Of one reward.
    pub reward: Wei,
    /// Of what one receiver is paid in a day (UTC).
    pub receiver: Wei,
    /// Of one transaction.
    pub batch: Wei,
    /// Wei of VTHO per gas.
    pub gas_price: Wei,
    /// Gas that a transaction may ask for.
    pub gas: u64,
    /// Contracts that may be called; none: the network's pool.
    pub contracts: Vec<Address>,
    /// Methods that may be called, by their names; none: all that pay a reward.
    pub methods: Vec<String>,
}

/// What is known beside the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Last byte of the network's genesis id.
    pub chain_tag: u8,
    /// The pool that pays.
    pub pool: Address,
    /// The app whose purse pays.
    pub app: AppId,
    /// What the day's budget still holds.
    pub day: Wei,
    /// What was signed for in this day, by receiver.
    pub received: HashMap<Address, Wei>,
}

/// Why something is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It is for another network.
    #[error("its chain tag is {0:#04x}")]
    Network(u8),
    /// It pays nobody.
    #[error("it has no clause")]
    Empty,
    /// It creates a contract, or calls one that is not on the list.
    #[error("clause {clause} calls {}", to.map_or_else(|| "no contract".to_owned(), |to| to.to_string()))]
    Contract {
        /// Which.
        clause: usize,
        /// What it calls.
        to: Option<Address>,
    },
    /// It moves VET.
    #[error("clause {clause} moves {value} wei of VET")]
    Value {
        /// Which.
        clause: usize,
        /// How much.
        value: Wei,
    },
    /// It calls something else than a payment of a reward that is on the list.
    #[error("clause {clause} calls the method {method}")]
    Method {
        /// Which.
        clause: usize,
        /// Its name, or its selector.
        method: String,
    },
    /// It pays from another app's purse.
    #[error("clause {clause} pays from the purse of {app}")]
    App {
        /// Which.
        clause: usize,
        /// Whose purse.
        app: AppId,
    },
    /// A reward is too large.
    #[error("clause {clause} pays {amount} wei, and signing.reward_ceiling is {ceiling}")]
    Reward {
        /// Which.
        clause: usize,
        /// How much.
        amount: Wei,
        /// How much may be.
        ceiling: Wei,
    },
    /// A receiver gets too much in a day.
    #[error("{receiver} would be paid {amount} wei in this day, and signing.receiver_ceiling is {ceiling}")]
    Receiver {
        /// Who.
        receiver: Address,
        /// How much with this transaction.
        amount: Wei,
        /// How much may be.
        ceiling: Wei,
    },
    /// The transaction pays too much.
    #[error("it pays {amount} wei, and signing.batch_ceiling is {ceiling}")]
    Batch {
        /// How much.
        amount: Wei,
        /// How much may be.
        ceiling: Wei,
    },
    /// The day's budget does not hold it.
    #[error("it pays {amount} wei, and chain.daily_ceiling leaves {left}")]
    Day {
        /// How much.
        amount: Wei,
        /// How much may be.
        left: Wei,
    },
    /// It offers too much for gas.
    #[error("it offers {price} wei of VTHO per gas, and signing.gas_price_ceiling is {ceiling}")]
    GasPrice {
        /// How much.
        price: Wei,
        /// How much may be.
        ceiling: Wei,
    },
    /// It offers a multiple of a price that it does not name.
    #[error("its price of gas is no number: gasPriceCoef {0}")]
    GasCoefficient(u8),
    /// It asks for too much gas.
    #[error("it asks for {gas} gas, and {ceiling} is the most")]
    Gas {
        /// How much.
        gas: u64,
        /// How much may be.
        ceiling: u64,
    },
}

/// A transaction that may be signed. Nothing else makes one than [`Policy::permit`].
#[derive(Debug)]
pub struct Permitted(UnsignedTx);

impl Permitted {
    /// Has it signed.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn sign(
        self,
        signer: &dyn TransactionSigner,
        gas_payer: Option<&dyn TransactionSigner>,
    ) -> Result<SignedTx, SignError> {
        signing::sign(self.0, signer, gas_payer).await
    }
}

impl Policy {
    /// One that bounds nothing but what is called: for local chains.
    #[must_use]
    pub fn unbounded() -> Self {
        Self {
            reward: Wei::MAX,
            receiver: Wei::MAX,
            batch: Wei::MAX,
            gas_price: Wei::MAX,
            gas: u64::MAX,
            contracts: Vec::new(),
            methods: Vec::new(),
        }
    }

    /// The largest reward that could ever be signed for, with a budget of so much a day.
    #[must_use]
    pub fn largest_reward(&self, daily_ceiling: Wei) -> Wei {
        self.reward.min(self.receiver).min(self.batch).min(daily_ceiling)
    }

    /// Lets a transaction through.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn permit(&self, unsigned: UnsignedTx, scope: &Scope) -> Result<Permitted, Violation> {
        if unsigned.chain_tag != scope.chain_tag {
            return Err(Violation::Network(unsigned.chain_tag));
        }
        self.permit_gas(&unsigned)?;
        let mut sum = Wei::ZERO;
        let mut received = scope.received.clone();
        for clause in 0..unsigned.clauses.len() {
            let call = self.permit_clause(&unsigned, clause, scope)?;
            sum = sum.checked_add(call.amount).unwrap_or(Wei::MAX);
            let of = received.entry(call.receiver).or_default();
            *of = of.checked_add(call.amount).unwrap_or(Wei::MAX);
            if *of > self.receiver {
                let (receiver, amount, ceiling) = (call.receiver, *of, self.receiver);
                return Err(Violation::Receiver { receiver, amount, ceiling });
            }
        }
        if unsigned.clauses.is_empty() {
            return Err(Violation::Empty);
        }
        if sum > self.batch {
            return Err(Violation::Batch { amount: sum, ceiling: self.batch });
        }
        if sum > scope.day {
            return Err(Violation::Day { amount: sum, left: scope.day });
        }
        Ok(Permitted(unsigned))
    }

    fn permit_gas(&self, unsigned: &UnsignedTx) -> Result<(), Violation> {
        if unsigned.gas > self.gas {
            return Err(Violation::Gas { gas: unsigned.gas, ceiling: self.gas });
        }
        match unsigned.fees {
            Fees::Dynamic { max_fee_per_gas: price, .. } if price > self.gas_price => {
                Err(Violation::GasPrice { price, ceiling: self.gas_price })
            }
            // The network's own price, before fees were dynamic; more than that cannot be judged from the bytes.
            Fees::Legacy { gas_price_coef } if gas_price_coef > 0 => {
                Err(Violation::GasCoefficient(gas_price_coef))
            }
            Fees::Dynamic { .. } | Fees::Legacy { .. } => Ok(()),
        }
    }

    fn permit_clause(
        &self,
        unsigned: &UnsignedTx,
        clause: usize,
        scope: &Scope,
    ) -> Result<RewardCall, Violation> {
        let chain::Clause { to, value, data } = &unsigned.clauses[clause];
        let listed = |to: &Address| match self.contracts.as_slice() {
            [] => *to == scope.pool,
            contracts => contracts.contains(to),
        };
        if !to.as_ref().is_some_and(listed) {
            return Err(Violation::Contract { clause, to: *to });
        }
        if *value != Wei::ZERO {
            return Err(Violation::Value { clause, value: *value });
        }
        let Some((kind, call)) = RewardCall::decode(data) else {
            let selector = data.get(..4).unwrap_or(data);
            return Err(Violation::Method { clause, method: format!("0x{}", hex::encode(selector)) });
        };
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method == kind.method()) {
            return Err(Violation::Method { clause, method: kind.method().to_owned() });
        }
        if call.app != scope.app {
            return Err(Violation::App { clause, app: call.app });
        }
        if call.amount > self.reward {
            return Err(Violation::Reward { clause, amount: call.amount, ceiling: self.reward });
        }
        Ok(call)
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
