//! A typed client of a Thor node's REST API. Each call is one HTTP request with a time limit and a bounded response; nothing is
//! retried here, since when to ask again is the caller's to decide.

mod error;
#[cfg(test)]
mod faults;
mod filter;
mod wire;

pub use error::{Advice, BadTransaction, NodeError, Rejection, Snippet, classify};
pub use filter::{Criterion, EventFilter, MAX_CRITERIA, MAX_PAGE, Order};
pub use wire::{
    Account, Block, BlockLog, BlockSummary, BlockTx, CallOutcome, Event, ExpandedBlock, FeeHistory, LogMeta,
    LoggedEvent, Output, Receipt, ReceiptMeta, Transaction, Transfer, TxMeta, WireClause,
};

use std::fmt;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Request, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use url::{Host, Url};

use crate::abi::Refusal;
use crate::amount::Wei;
use crate::asked::{Asked, Observer};
use crate::id::{Address, BlockId, TxId};
use crate::tx::Clause;

/// Names the network, in questions and in responses.
const GENESIS_HEADER: &str = "x-genesis-id";
/// Where transactions are posted: the one path whose requests change something.
const TRANSACTIONS: &str = "transactions";

/// Bounds of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time to connect.
    pub connect: Duration,
    /// Time for a whole call, the response's last byte included.
    pub call: Duration,
    /// Bytes of a response that are read.
    pub body: usize,
}

impl Default for Limits {
    /// 3 s, 15 s, 16 MiB: a block of 40M gas holds at most 5 MB of logs (8 gas a byte), which hex doubles.
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), call: Duration::from_secs(15), body: 16 * 1024 * 1024 }
    }
}

/// Which block a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// The newest block of the node's branch.
    Best,
    /// The newest justified block.
    Justified,
    /// The newest block that can no longer be undone.
    Finalized,
    /// The block that would come next; for simulations only.
    Next,
    /// A height on the node's branch.
    Number(u32),
    /// One block, on whatever branch.
    Id(BlockId),
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best => f.write_str("best"),
            Self::Justified => f.write_str("justified"),
            Self::Finalized => f.write_str("finalized"),
            Self::Next => f.write_str("next"),
            Self::Number(number) => number.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// A list of clauses to try out without sending them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulation<'a> {
    /// In order; each sees what those before it did.
    pub clauses: &'a [Clause],
    /// The account that would act.
    pub caller: Address,
    /// The account that would pay the gas, when it is another.
    pub gas_payer: Option<Address>,
    /// Gas limit; the node's own cap (50M by default) when `None`.
    pub gas: Option<u64>,
    /// The state to try it on; [`Revision::Next`] for what is about to be sent.
    pub at: Revision,
}

/// What was seen of a response, as far as it came.
#[derive(Default)]
struct Seen {
    status: Option<u16>,
    bytes: usize,
}

/// A client of one node.
#[derive(Clone)]
pub struct Node {
    base: Url,
    http: Client,
    body_limit: usize,
    genesis: Option<BlockId>,
    observer: Option<Observer>,
}

impl Node {
    /// A client of the node at `base`, e.g. `http://127.0.0.1:8669`. With `genesis`, each call carries it, and a node of another
    /// network gives [`NodeError::WrongNetwork`]: a payout cannot reach the wrong chain.
    ///
    /// # Errors
    /// [`NodeError::Config`] for an address that is no http(s) address, or for one without TLS outside of a private network.
    pub fn new(base: &str, genesis: Option<BlockId>, limits: Limits) -> Result<Self, NodeError> {
        let config = |reason: &str| NodeError::Config(Snippet::new(reason));
        // Parsing drops nothing of a password in the address, so neither the address nor the error may be shown.
        let mut base = Url::parse(base).map_err(|e| config(&e.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(config("the address must begin with http:// or https://"));
        }
        if base.scheme() == "http" && !is_private(&base) {
            return Err(config(
                "what a public address says without TLS can be forged on the way: use https://",
            ));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut headers = HeaderMap::new();
        if let Some(genesis) = genesis {
            let value = HeaderValue::from_str(&genesis.to_string()).map_err(|e| config(&e.to_string()))?;
            headers.insert(HeaderName::from_static(GENESIS_HEADER), value);
        }
        install_ring();
        let mut builder = Client::builder()
            .default_headers(headers)
            .redirect(Policy::none())
            .connect_timeout(limits.connect)
            .timeout(limits.call);
        if base.scheme() == "http" {
            // No redirect leads to TLS, and reading the machine's certificates takes tens of milliseconds.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|e| config(&chain_of(&e)))?;
        Ok(Self { base, http, body_limit: limits.body, genesis, observer: None })
    }

    /// The same, which tells of each request that ends. Of one that is no longer waited for nothing is told.
    #[must_use]
    pub fn observed(self, observer: Observer) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// The network's genesis block, whose id names the network and whose last byte is the chain tag.
    ///
    /// # Errors
    /// Any [`NodeError`] but those of transactions.
    pub async fn genesis(&self) -> Result<BlockId, NodeError> {
        let block = self.block(Revision::Number(0)).await?;
        block.map(|block| block.id).ok_or_else(|| unexpected("no genesis block"))
    }

    /// A block with the ids of its transactions; `None` when the node does not know it.
    ///
    /// # Errors
    /// Any [`NodeError`] but those of transactions.
    pub async fn block(&self, revision: Revision) -> Result<Option<BlockSummary>, NodeError> {
        self.block_as(revision, &[]).await
    }

    /// A block with all that its transactions did; `None` when the node does not know it.
    ///
    /// # Errors
    /// Any [`NodeError`] but those of transactions.
    pub async fn expanded_block(&self, revision: Revision) -> Result<Option<ExpandedBlock>, NodeError> {
        self.block_as(revision, &[("expanded", "true")]).await
    }

    async fn block_as<T: DeserializeOwned>(
        &self,
        revision: Revision,
        query: &[(&str, &str)],
    ) -> Result<Option<Block<T>>, NodeError> {
        let block: Option<Block<T>> = self.get(&format!("blocks/{revision}"), query).await?;
        let fits = block.as_ref().is_none_or(|block| {
            block.id.number() == block.number
                && match revision {
                    Revision::Number(number) => block.number == number,
                    Revision::Id(id) => block.id == id,
                    _ => true,
                }
        });
        if fits { Ok(block) } else { Err(unexpected("another block than the one asked for")) }
    }

    /// Sends a signed transaction. Success means that the node took the bytes, not that they will be on the chain: the same bytes
    /// are to be sent again until a receipt exists or they have expired.
    ///
    /// # Errors
    /// [`NodeError::Rejected`] (`Rejection::Known` means that it is on the chain), [`NodeError::BadTransaction`] and the rest.
    pub async fn send(&self, raw: &[u8]) -> Result<TxId, NodeError> {
        #[derive(Deserialize)]
        struct Sent {
            id: TxId,
        }
        let body = json!({ "raw": format!("0x{}", hex::encode(raw)) });
        let sent: Sent = self.post(TRANSACTIONS, &[], &body).await?;
        Ok(sent.id)
    }

    /// A transaction by its id, as seen from `head` (the node's best block when `None`), or `None`. With `pending` those that
    /// wait in the pool count too.
    ///
    /// # Errors
    /// [`NodeError::UnknownBlock`] when the node lacks `head`; any but those of sending.
    pub async fn transaction(
        &self,
        id: TxId,
        pending: bool,
        head: Option<BlockId>,
    ) -> Result<Option<Transaction>, NodeError> {
        let head = head.map(|head| head.to_string());
        let mut query = vec![("pending", if pending { "true" } else { "false" })];
        query.extend(head.as_deref().map(|head| ("head", head)));
        let tx: Option<Transaction> = self.get(&format!("transactions/{id}"), &query).await?;
        same_id(tx, id, |tx| tx.id)
    }

    /// A signed transaction's bytes, where the node's best branch holds it; `None` where it does not.
    ///
    /// # Errors
    /// Any [`NodeError`] but those of sending.
    pub async fn raw_transaction(&self, id: TxId) -> Result<Option<Vec<u8>>, NodeError> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(with = "crate::tx::hex_bytes")]
            raw: Vec<u8>,
        }
        let found: Option<Raw> = self.get(&format!("transactions/{id}"), &[("raw", "true")]).await?;
        Ok(found.map(|found| found.raw))
    }

    /// What a transaction did, as seen from `head` (the node's best block when `None`); `None` when that branch does not hold it.
    /// With a finalized `head` beyond the transaction's last valid block, `None` proves that it will never be on the chain.
    ///
    /// # Errors
    /// [`NodeError::UnknownBlock`] when the node lacks `head`; any but those of sending.
    pub async fn receipt(&self, id: TxId, head: Option<BlockId>) -> Result<Option<Receipt>, NodeError> {
        let head = head.map(|head| head.to_string());
        let query: Vec<_> = head.as_deref().map(|head| ("head", head)).into_iter().collect();
        let receipt: Option<Receipt> = self.get(&format!("transactions/{id}/receipt"), &query).await?;
        same_id(receipt, id, |receipt| receipt.meta.tx_id)
    }

    /// Tries clauses out. The response stops after the first failing clause, so the last outcome alone can be a failure; use
    /// [`failing_clause`].
    ///
    /// # Errors
    /// [`NodeError::UnknownBlock`] when the node lacks the block; any but those of sending.
    pub async fn simulate(&self, simulation: &Simulation<'_>) -> Result<Vec<CallOutcome>, NodeError> {
        let clauses: Vec<_> = simulation.clauses.iter().map(clause_json).collect();
        let mut body = json!({ "clauses": clauses, "caller": simulation.caller });
        if let Some(gas) = simulation.gas {
            body["gas"] = gas.into();
        }
        if let Some(payer) = simulation.gas_payer {
            body["gasPayer"] = payer.to_string().into();
        }
        let revision = simulation.at.to_string();
        let outcomes: Vec<CallOutcome> = self.post("accounts/*", &[("revision", &revision)], &body).await?;
        let stopped = outcomes.last().is_some_and(|outcome| outcome.reverted);
        if outcomes.len() > simulation.clauses.len()
            || (outcomes.len() < simulation.clauses.len() && !stopped)
        {
            return Err(unexpected("another number of outcomes than of clauses"));
        }
        Ok(outcomes)
    }

    /// Reads from a contract: one call without a caller. The outcome may be a failure.
    ///
    /// # Errors
    /// As [`Node::simulate`].
    pub async fn call(&self, to: Address, data: Vec<u8>, at: Revision) -> Result<CallOutcome, NodeError> {
        let clauses = [Clause::call(to, data)];
        let simulation =
            Simulation { clauses: &clauses, caller: Address::default(), gas_payer: None, gas: None, at };
        let mut outcomes = self.simulate(&simulation).await?;
        outcomes.pop().ok_or_else(|| unexpected("no outcome"))
    }

    /// An account's VET and VTHO.
    ///
    /// # Errors
    /// [`NodeError::UnknownBlock`] when the node lacks the block; any but those of sending.
    pub async fn account(&self, address: Address, at: Revision) -> Result<Account, NodeError> {
        self.get(&format!("accounts/{address}"), &[("revision", &at.to_string())]).await
    }

    /// A contract's code; empty when the address holds none.
    ///
    /// # Errors
    /// As [`Node::account`].
    pub async fn code(&self, address: Address, at: Revision) -> Result<Vec<u8>, NodeError> {
        #[derive(Deserialize)]
        struct Code {
            #[serde(with = "crate::tx::hex_bytes")]
            code: Vec<u8>,
        }
        let code: Code =
            self.get(&format!("accounts/{address}/code"), &[("revision", &at.to_string())]).await?;
        Ok(code.code)
    }

    /// Logs of the node's best branch, one page.
    ///
    /// # Errors
    /// [`NodeError::BadRequest`] when the filter exceeds what the node allows; any but those of sending.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<LoggedEvent>, NodeError> {
        self.post("logs/event", &[], &filter.to_json()).await
    }

    /// The tip that the node suggests, wei of VTHO per gas.
    ///
    /// # Errors
    /// Any [`NodeError`] but those of transactions.
    pub async fn priority_fee(&self) -> Result<Wei, NodeError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Priority {
            #[serde(with = "wire::hex_wei")]
            max_priority_fee_per_gas: Wei,
        }
        let priority: Priority = self.get("fees/priority", &[]).await?;
        Ok(priority.max_priority_fee_per_gas)
    }

    /// Base fees of the last `blocks` blocks up to the best one.
    ///
    /// # Errors
    /// Any [`NodeError`] but those of transactions.
    pub async fn fee_history(&self, blocks: u32) -> Result<FeeHistory, NodeError> {
        let blocks = blocks.to_string();
        self.get("fees/history", &[("blockCount", blocks.as_str()), ("newestBlock", "best")]).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, NodeError> {
        self.ask(self.http.get(self.url(path, query)?)).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &serde_json::Value,
    ) -> Result<T, NodeError> {
        self.ask(self.http.post(self.url(path, query)?).json(body)).await
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, NodeError> {
        let mut url = self.base.join(path).map_err(|e| NodeError::Config(Snippet::new(&e.to_string())))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, NodeError> {
        let request = request.build().map_err(unavailable)?;
        let Some(observer) = &self.observer else {
            return self.exchange(request, &mut Seen::default()).await;
        };
        let (method, path) = (request.method().clone(), self.within(request.url()));
        let sent = request.body().and_then(|body| body.as_bytes()).map_or(0, <[u8]>::len);
        let (started, mut seen) = (Instant::now(), Seen::default());
        let outcome = self.exchange(request, &mut seen).await;
        observer(&Asked {
            service: &self.base.origin().ascii_serialization(),
            method: method.as_str(),
            path: &path,
            sent,
            status: seen.status,
            received: seen.bytes,
            took: started.elapsed(),
            error: outcome.as_ref().err().map(|error| error as &dyn fmt::Display),
            changes: path == TRANSACTIONS,
        });
        outcome
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request, seen: &mut Seen) -> Result<T, NodeError> {
        let response = self.http.execute(request).await.map_err(unavailable)?;
        let status = response.status();
        seen.status = Some(status.as_u16());
        // A proxy may drop our header; the response's own names the network too.
        let elsewhere = response.headers().get(GENESIS_HEADER).is_some_and(|found| !self.is_network(found));
        let body = self.read(response).await?;
        seen.bytes = body.len();
        if elsewhere {
            return Err(NodeError::WrongNetwork);
        }
        if !status.is_success() {
            return Err(classify(status.as_u16(), &String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => unexpected(&error.to_string()),
            _ => NodeError::NotJson {
                status: status.as_u16(),
                snippet: Snippet::new(&String::from_utf8_lossy(&body)),
            },
        })
    }

    /// The path of a URL behind that of the node's address, which may carry a token.
    fn within(&self, url: &Url) -> String {
        url.path().strip_prefix(self.base.path()).unwrap_or_default().to_owned()
    }

    fn is_network(&self, found: &HeaderValue) -> bool {
        self.genesis.is_none_or(|genesis| found.to_str().is_ok_and(|found| found == genesis.to_string()))
    }

    /// The whole body, or an error as soon as it exceeds the limit; a stated length is not trusted and not waited for.
    async fn read(&self, mut response: Response) -> Result<Vec<u8>, NodeError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > self.body_limit {
                return Err(NodeError::TooLarge { limit: self.body_limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl fmt::Debug for Node {
    /// Host and port alone: the address may carry a password or a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("host", &self.base.host_str())
            .field("port", &self.base.port_or_known_default())
            .finish_non_exhaustive()
    }
}

/// The index of the clause that failed in a simulation and why, if any did.
#[must_use]
pub fn failing_clause(outcomes: &[CallOutcome]) -> Option<(usize, Refusal)> {
    let index = outcomes.len().checked_sub(1)?;
    outcomes[index].failure().map(|reason| (index, reason))
}

/// Whether an address is of this machine or a private network: a name without a dot or of a domain that is never public, a loopback,
/// private, shared or link-local address.
fn is_private(address: &Url) -> bool {
    match address.host() {
        Some(Host::Domain(name)) => {
            let local = [".localhost", ".local", ".internal", ".lan", ".svc", ".test", ".home.arpa"];
            !name.contains('.') || local.iter().any(|end| name.ends_with(end))
        }
        Some(Host::Ipv4(ip)) => {
            // 100.64.0.0/10 is shared by providers' private networks (RFC 6598).
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified() || shared
        }
        Some(Host::Ipv6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified()
        }
        None => false,
    }
}

fn clause_json(clause: &Clause) -> serde_json::Value {
    json!({ "to": clause.to, "value": clause.value.to_hex(), "data": format!("0x{}", hex::encode(&clause.data)) })
}

fn same_id<T>(response: Option<T>, id: TxId, of: impl Fn(&T) -> TxId) -> Result<Option<T>, NodeError> {
    match &response {
        Some(found) if of(found) != id => Err(unexpected("another transaction than the one asked for")),
        _ => Ok(response),
    }
}

fn unexpected(what: &str) -> NodeError {
    NodeError::Unexpected(Snippet::new(what))
}

fn unavailable(error: reqwest::Error) -> NodeError {
    // The address may carry a password; the causes do not.
    NodeError::Unavailable(Snippet::new(&chain_of(&error.without_url())))
}

/// An error and its causes in one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// rustls needs a process-wide provider of cryptography; the first one installed stays, so an error only says that there is one.
fn install_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
