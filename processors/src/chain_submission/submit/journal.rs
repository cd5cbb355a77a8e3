//! What was asked of contracts, for `contract_interaction_logs`: every simulation, and reads when what they say changes or when the
//! contract fails them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chain::contract::{Contract, ContractError, Notes};
use chain::node::{CallOutcome, Revision};
use chain::tx::clause_gas;
use chain::{Address, Clause, Node, Wei};
use schemas::logs::ContractInteractionLog;
use serde_json::{Value, json};

use super::proof::Means;
use super::rounds::Rounds;
use crate::chain_submission::ledger::documents::parameters;
use crate::chain_submission::network::REWARDS_POOL;

/// How long an inspection of the contracts is trusted: a block of a public network. What it finds is found by the simulation of the
/// payments too, which is made each time.
const TRUSTED: Duration = Duration::from_secs(10);

/// What the contracts said, as far as it is remembered between plans.
#[derive(Debug, Default)]
pub struct Journal {
    /// When rounds began.
    pub rounds: Rounds,
    inspected: Option<(Instant, Address, u32)>,
    notes: Notes,
    known: HashMap<(Address, &'static str), String>,
    waiting: Vec<ContractInteractionLog>,
}

impl Journal {
    /// The version of the pool, where it was inspected a moment ago.
    #[must_use]
    pub fn inspected(&self, pool: Address) -> Option<u32> {
        let (at, of, version) = self.inspected?;
        (of == pool && at.elapsed() < TRUSTED).then_some(version)
    }

    /// Remembers an inspection that found nothing in the way.
    pub fn inspect(&mut self, pool: Address, version: u32) {
        self.inspected = Some((Instant::now(), pool, version));
    }

    /// Has the contracts inspected again: something stands in the way.
    pub fn forget(&mut self) {
        self.inspected = None;
    }

    /// A contract in the newest state, whose reads are to be noted.
    #[must_use]
    pub fn contract<'a>(&self, node: &'a Node, address: Address) -> Contract<'a> {
        Contract::new(node, address, Revision::Best).noting(self.notes.clone())
    }

    /// Notes the read that was made last of a contract from [`Journal::contract`]. `parameters` are the call's by their ABI names.
    ///
    /// # Errors
    /// The read's own.
    pub fn note<T>(
        &mut self,
        contract_name: &str,
        parameters: &Value,
        read: Result<T, ContractError>,
        shown: impl FnOnce(&T) -> Value,
    ) -> Result<T, ContractError> {
        let noted = self.notes.lock().ok().and_then(|mut notes| notes.drain(..).next_back());
        // A node that does not respond is told of in `blockchain_connection_logs`.
        let Some(noted) = noted else { return read };
        let said = match &read {
            Ok(value) => shown(value),
            Err(error) => json!(error.to_string()),
        };
        let before = self.known.insert((noted.address, noted.method), said.to_string());
        if read.is_err() || before.as_ref() != Some(&said.to_string()) {
            self.waiting.push(ContractInteractionLog {
                contract_address: noted.address.to_string(),
                contract_name: contract_name.to_owned(),
                method_name: noted.method.to_owned(),
                parameters: parameters.clone(),
                gas_estimated: None,
                gas_used: i64::try_from(noted.gas_used).ok(),
                success: read.is_ok(),
                return_value: read.is_ok().then(|| returned(&noted.data, &json!({"value": said}))),
                error_message: read.as_ref().err().map(ToString::to_string),
                call_kind: "view".to_owned(),
                tx_hash: None,
            });
        }
        read
    }

    /// Notes a simulated clause, which pays this amount to this receiver.
    pub fn simulated(
        &mut self,
        means: &Means<'_>,
        (amount, receiver, clause): (Wei, Address, &Clause),
        outcome: &CallOutcome,
    ) {
        let failure = outcome.failure();
        self.waiting.push(ContractInteractionLog {
            contract_address: means.network.pool.to_string(),
            contract_name: REWARDS_POOL.to_owned(),
            method_name: means.kind.method().to_owned(),
            parameters: parameters(
                &means.network.app.to_string(),
                &amount.to_string(),
                &receiver.to_string(),
            ),
            gas_estimated: i64::try_from(outcome.gas_used.saturating_add(clause_gas(clause))).ok(),
            gas_used: i64::try_from(outcome.gas_used).ok(),
            success: failure.is_none(),
            // The pool's functions return nothing.
            return_value: failure.is_none().then(|| returned(&outcome.data, &json!({}))),
            error_message: failure.map(|refusal| refusal.to_string()),
            call_kind: "simulate".to_owned(),
            tx_hash: None,
        });
    }

    /// The documents so far; none is left.
    pub fn take(&mut self) -> Vec<ContractInteractionLog> {
        std::mem::take(&mut self.waiting)
    }
}

fn returned(data: &[u8], decoded: &Value) -> Value {
    json!({"data": format!("0x{}", hex::encode(data)), "decoded": decoded})
}
