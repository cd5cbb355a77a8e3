//! What receivers of B3TR hold after a block: it stands with each transfer, so that whoever reads the blocks needs no node. A balance is
//! for people to look at: where the node does not say it, the block is told without it.

use std::time::Duration;

use chain::abi::ContractEvent;
use chain::node::Event;
use chain::{Address, BlockId};
use schemas::events::{BlockAdopted, ChainLog, ChainStep};
use tokio::time::timeout;

use crate::source::Chain;

/// Longest wait for the balances of one block.
const WAIT: Duration = Duration::from_secs(2);
/// Receivers of one block whose balances are asked for: five of our largest transactions. Anybody can make a block with more.
const RECEIVERS: usize = 200;

/// Adds the receivers' balances to the transfers of a token.
pub(crate) async fn add<C: Chain>(chain: &C, steps: &mut [ChainStep], token: Option<Address>) {
    let Some(token) = token else { return };
    for step in steps {
        let ChainStep::Adopted(block) = step else { continue };
        let receivers = receivers(block, token);
        let Ok(at) = block.block.id.parse::<BlockId>() else { continue };
        if receivers.is_empty() {
            continue;
        }
        let balances = match timeout(WAIT, chain.token_balances(token, &receivers, at)).await {
            Ok(Ok(balances)) => balances,
            Ok(Err(error)) => {
                tracing::warn!(%error, block = %at, "balances are not known");
                continue;
            }
            Err(_) => {
                tracing::warn!(block = %at, "balances are not known in time");
                continue;
            }
        };
        let of =
            |receiver| receivers.iter().position(|known| *known == receiver).and_then(|at| balances.get(at));
        for log in block.transactions.iter_mut().flat_map(|tx| &mut tx.logs) {
            log.balance_after_wei = receiver(log, token).and_then(of).map(ToString::to_string);
        }
    }
}

/// Who got some of the token in a block, each once.
fn receivers(block: &BlockAdopted, token: Address) -> Vec<Address> {
    let mut receivers: Vec<Address> =
        block.transactions.iter().flat_map(|tx| &tx.logs).filter_map(|log| receiver(log, token)).collect();
    receivers.sort_unstable();
    receivers.dedup();
    receivers.truncate(RECEIVERS);
    receivers
}

fn receiver(log: &ChainLog, token: Address) -> Option<Address> {
    let event =
        Event::from_hex(&log.address, &log.topics, &log.data).filter(|event| event.address == token)?;
    match ContractEvent::decode(&event)? {
        ContractEvent::Transfer { to, .. } => Some(to),
        _ => None,
    }
}
