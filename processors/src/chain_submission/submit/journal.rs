//! What was asked of contracts, for `contract_interaction_logs`: every simulation, and reads when what they say changes or when the
//! contract fails them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chain::contract::{Contract, ContractError, Noted, Notes, Standings};
use chain::node::{CallOutcome, Revision};
use chain::tx::clause_gas;
use chain::{Address, Clause, Node, Wei};
use schemas::logs::ContractInteractionLog;
use serde_json::{Value, json};

use super::proof::Means;
use super::rounds::Rounds;
use crate::chain_submission::ledger::documents::parameters;
use crate::chain_submission::network::{PASSPORT, REWARDS_POOL};

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
    without_passport: bool,
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
        self.contract_at(node, address, Revision::Best)
    }

    /// The same in another state.
    #[must_use]
    pub fn contract_at<'a>(&self, node: &'a Node, address: Address, at: Revision) -> Contract<'a> {
        Contract::new(node, address, at).noting(self.notes.clone())
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
            let value = read.as_ref().map(|_| said).map_err(ToString::to_string);
            self.waiting.push(view(&noted, contract_name, parameters, value));
        }
        read
    }

    /// Notes what the passport was asked about receivers: what it says against one, and that it failed. What it says of all others, before
    /// each transaction, is nothing new.
    ///
    /// # Errors
    /// The read's own.
    pub fn standings(
        &mut self,
        receivers: &[Address],
        read: Result<Standings, ContractError>,
    ) -> Result<Standings, ContractError> {
        let notes: Vec<Noted> =
            self.notes.lock().map(|mut notes| notes.drain(..).collect()).unwrap_or_default();
        match &read {
            Err(error) => {
                let failed =
                    notes.last().map(|noted| view(noted, PASSPORT, &json!({}), Err(error.to_string())));
                self.waiting.extend(failed);
            }
            Ok(standings) => {
                let noted =
                    |method: &str, at: usize| notes.iter().filter(|noted| noted.method == method).nth(at);
                for (at, (receiver, standing)) in receivers.iter().zip(&standings.of).enumerate() {
                    let said = if standing.blacklisted {
                        noted("isBlacklisted", at).map(|noted| (noted, json!(true)))
                    } else if standings.is_reported(standing) {
                        noted("signaledCounter", at).map(|noted| (noted, json!(standing.signals.to_string())))
                    } else {
                        None
                    };
                    let user = json!({"user": receiver.to_string()});
                    self.waiting.extend(said.map(|(noted, value)| view(noted, PASSPORT, &user, Ok(value))));
                }
            }
        }
        read
    }

    /// Whether it is the first time that a network without a passport is paid on.
    pub fn first_without_passport(&mut self) -> bool {
        !std::mem::replace(&mut self.without_passport, true)
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

/// The document of a read: the value that it gave, or why it gave none.
fn view(
    noted: &Noted,
    contract_name: &str,
    parameters: &Value,
    said: Result<Value, String>,
) -> ContractInteractionLog {
    let (value, error_message) = match said {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error)),
    };
    ContractInteractionLog {
        contract_address: noted.address.to_string(),
        contract_name: contract_name.to_owned(),
        method_name: noted.method.to_owned(),
        parameters: parameters.clone(),
        gas_estimated: None,
        gas_used: i64::try_from(noted.gas_used).ok(),
        success: value.is_some(),
        return_value: value.map(|value| returned(&noted.data, &json!({"value": value}))),
        error_message,
        call_kind: "view".to_owned(),
        tx_hash: None,
    }
}

fn returned(data: &[u8], decoded: &Value) -> Value {
    json!({"data": format!("0x{}", hex::encode(data)), "decoded": decoded})
}
