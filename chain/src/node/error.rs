//! Every response of a node that is no success, as a type that says what to do next. The texts are those of Thor v2.4.4
//! (`txpool`, `tx`, `cmd/thor/solo`, `api`); the table in the tests below lists them.

use std::fmt;

/// Longest piece of a foreign response that is kept, in characters.
const SNIPPET_CHARS: usize = 160;

/// A piece of what a node sent, cut to 160 characters, control characters replaced: fit for a log line.
#[derive(Clone, PartialEq, Eq)]
pub struct Snippet(String);

impl Snippet {
    /// Cuts and cleans the text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let clean = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
        Self(clean.take(SNIPPET_CHARS).collect())
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Why a call of a node gave no response to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The pool refused a transaction that is well-formed (403 `tx rejected: …`).
    #[error("the node refused the transaction: {0}")]
    Rejected(Rejection),
    /// The transaction is malformed or belongs elsewhere (400 `bad tx: …`, `raw: …`): a fault of ours, repeated by every node.
    #[error("the node calls the transaction malformed: {0}")]
    BadTransaction(BadTransaction),
    /// The node serves another chain than the genesis id that was sent (403 `genesis id mismatch`).
    #[error("the node serves another network")]
    WrongNetwork,
    /// The node does not have the block that `head` or `revision` names (yet, or any more).
    #[error("the node does not know the block that the question is pinned to")]
    UnknownBlock,
    /// The node refused the question itself (400, 403, 404, 410 with another text).
    #[error("the node refused the request with {status}: {message}")]
    BadRequest {
        /// HTTP status.
        status: u16,
        /// The node's text.
        message: Snippet,
    },
    /// No response, or one that says "later": connection refused or lost, time-out, 429, 5xx.
    #[error("the node is unavailable: {0}")]
    Unavailable(Snippet),
    /// A response that is no JSON where JSON is due: a proxy's or a captive portal's page, a cut body.
    #[error("the node responded {status} with something that is no JSON: {snippet}")]
    NotJson {
        /// HTTP status.
        status: u16,
        /// How it begins.
        snippet: Snippet,
    },
    /// The response is longer than this client reads.
    #[error("the node's response exceeds {limit} bytes")]
    TooLarge {
        /// Bytes that are read at most.
        limit: usize,
    },
    /// JSON, but not what was asked for: a field missing or of another type, another id than the one in question.
    #[error("the node's response is not what was asked for: {0}")]
    Unexpected(Snippet),
    /// The client cannot be built: a malformed address, or no TLS.
    #[error("the node's address or the client's settings are unusable: {0}")]
    Config(Snippet),
}

impl NodeError {
    /// True when the same call may succeed later or at another node, unchanged.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Rejected(rejection) => rejection.advice() == Advice::Rebroadcast,
            Self::UnknownBlock | Self::Unavailable(_) | Self::NotJson { .. } => true,
            Self::TooLarge { .. } | Self::Unexpected(_) => true,
            Self::BadTransaction(_) | Self::WrongNetwork | Self::BadRequest { .. } | Self::Config(_) => false,
        }
    }
}

/// What to do with a refused transaction. In no case may a successor be built before the old one is proven dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It is on the chain already: ask for its receipt.
    AskReceipt,
    /// Send the same bytes again later, here or elsewhere.
    Rebroadcast,
    /// Sending is over; whether it got in must be seen from the chain.
    AwaitFinality,
    /// Sending again cannot help: plan anew once it is proven dead.
    Replan,
}

/// Why a pool refused a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// `known tx`: it is on the chain.
    Known,
    /// `expired`.
    Expired,
    /// `block ref out of schedule`: the reference is too far ahead of this node.
    RefAhead,
    /// `tx gas exceeds block gas limit`.
    GasAboveBlockLimit,
    /// `size too large`: above 64 KiB.
    TooLarge,
    /// `unsupported features`, or `unused reserved slot`.
    Reserved,
    /// `gas price is less than block base fee`.
    BaseFee,
    /// `insufficient energy`, also `… for overall pending cost`: the gas payer lacks VTHO; also a wrong gas payer's signature.
    InsufficientEnergy,
    /// `account quota exceeded`: too many of the origin's transactions are pooled (128 by default).
    AccountQuota,
    /// `delegator quota exceeded`.
    DelegatorQuota,
    /// `dep reverted`: the transaction it depends on failed.
    DependencyReverted,
    /// `pool is full`, `non executable pool is full`.
    PoolFull,
    /// `tx is not executable`: yet.
    NotExecutable,
    /// `resolve transaction: …` of the on-demand solo pool: malformed.
    Unresolvable(Snippet),
    /// A text that this version does not know.
    Other(Snippet),
}

impl Rejection {
    /// What to do next. An unknown reason is retried: the same bytes again, until they expire.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Known => Advice::AskReceipt,
            Self::Expired => Advice::AwaitFinality,
            Self::RefAhead
            | Self::BaseFee
            | Self::InsufficientEnergy
            | Self::AccountQuota
            | Self::DelegatorQuota
            | Self::PoolFull
            | Self::NotExecutable
            | Self::Other(_) => Advice::Rebroadcast,
            Self::GasAboveBlockLimit
            | Self::TooLarge
            | Self::Reserved
            | Self::DependencyReverted
            | Self::Unresolvable(_) => Advice::Replan,
        }
    }

    fn parse(reason: &str) -> Self {
        match reason {
            "known tx" => Self::Known,
            "expired" => Self::Expired,
            "block ref out of schedule" => Self::RefAhead,
            "tx gas exceeds block gas limit" => Self::GasAboveBlockLimit,
            "size too large" => Self::TooLarge,
            "unsupported features" | "unused reserved slot" => Self::Reserved,
            "gas price is less than block base fee" => Self::BaseFee,
            "insufficient energy" | "insufficient energy for overall pending cost" => {
                Self::InsufficientEnergy
            }
            "account quota exceeded" => Self::AccountQuota,
            "delegator quota exceeded" => Self::DelegatorQuota,
            "dep reverted" => Self::DependencyReverted,
            "pool is full" | "non executable pool is full" => Self::PoolFull,
            "tx is not executable" => Self::NotExecutable,
            _ => match reason.strip_prefix("resolve transaction: ") {
                Some(cause) => Self::Unresolvable(Snippet::new(cause)),
                None => Self::Other(Snippet::new(reason)),
            },
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known => f.write_str("it is on the chain already"),
            Self::Expired => f.write_str("it has expired"),
            Self::RefAhead => f.write_str("its block reference is ahead of the node"),
            Self::GasAboveBlockLimit => f.write_str("its gas exceeds a block's"),
            Self::TooLarge => f.write_str("it is longer than 64 KiB"),
            Self::Reserved => f.write_str("it uses features that the network lacks"),
            Self::BaseFee => f.write_str("its fee is below the base fee"),
            Self::InsufficientEnergy => f.write_str("the gas payer lacks VTHO"),
            Self::AccountQuota => f.write_str("too many transactions of this account are waiting"),
            Self::DelegatorQuota => f.write_str("too many transactions of this gas payer are waiting"),
            Self::DependencyReverted => f.write_str("the transaction it depends on failed"),
            Self::PoolFull => f.write_str("the pool is full"),
            Self::NotExecutable => f.write_str("it cannot be executed yet"),
            Self::Unresolvable(cause) => write!(f, "unresolvable: {cause}"),
            Self::Other(text) => write!(f, "{text}"),
        }
    }
}

/// Why a transaction is malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTransaction {
    /// `chain tag mismatch`: made for another network.
    ChainTag,
    /// `intrinsic gas exceeds provided gas`.
    GasTooLow,
    /// `maxFeePerGas is less than maxPriorityFeePerGas`.
    PriorityAboveMax,
    /// `invalid signature …`: of the wrong length, with a high s, or with a recovery id other than 0 and 1.
    Signature(Snippet),
    /// `raw: …`: no hex, no RLP, an unknown type.
    Encoding(Snippet),
    /// A text that this version does not know.
    Other(Snippet),
}

impl BadTransaction {
    fn parse(reason: &str) -> Self {
        match reason {
            "chain tag mismatch" => Self::ChainTag,
            "intrinsic gas exceeds provided gas" => Self::GasTooLow,
            "maxFeePerGas is less than maxPriorityFeePerGas" => Self::PriorityAboveMax,
            _ if reason.starts_with("invalid signature") => Self::Signature(Snippet::new(reason)),
            _ => Self::Other(Snippet::new(reason)),
        }
    }
}

impl fmt::Display for BadTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChainTag => f.write_str("it carries another network's chain tag"),
            Self::GasTooLow => f.write_str("its gas does not cover the intrinsic gas"),
            Self::PriorityAboveMax => f.write_str("its priority fee exceeds its maximum fee"),
            Self::Signature(text) | Self::Encoding(text) | Self::Other(text) => write!(f, "{text}"),
        }
    }
}

/// The one mapping from an unsuccessful response to an error. `status` is outside of 200..=299.
#[must_use]
pub fn classify(status: u16, body: &str) -> NodeError {
    let text = body.trim();
    if status == 429 || status == 408 || status >= 500 {
        return NodeError::Unavailable(Snippet::new(&format!("{status} {text}")));
    }
    // Thor's errors are plain text of one line; a page comes from something in between. Redirects are not followed.
    if text.starts_with('<') || text.is_empty() || (300..400).contains(&status) {
        return NodeError::NotJson { status, snippet: Snippet::new(text) };
    }
    match status {
        403 if text == "genesis id mismatch" => NodeError::WrongNetwork,
        400 | 403 => match text.split_once(": ") {
            Some(("tx rejected", reason)) => NodeError::Rejected(Rejection::parse(reason)),
            Some(("bad tx", reason)) => NodeError::BadTransaction(BadTransaction::parse(reason)),
            Some(("raw", reason)) => {
                NodeError::BadTransaction(BadTransaction::Encoding(Snippet::new(reason)))
            }
            Some(("head" | "revision", reason)) if reason.ends_with("not found") => NodeError::UnknownBlock,
            _ => NodeError::BadRequest { status, message: Snippet::new(text) },
        },
        _ => NodeError::BadRequest { status, message: Snippet::new(text) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(rejection: Rejection) -> NodeError {
        NodeError::Rejected(rejection)
    }

    fn bad(fault: BadTransaction) -> NodeError {
        NodeError::BadTransaction(fault)
    }

    fn request(status: u16, text: &str) -> NodeError {
        NodeError::BadRequest { status, message: Snippet::new(text) }
    }

    fn snippet(text: &str) -> Snippet {
        Snippet::new(text)
    }

    #[test]
    fn every_refusal_of_a_pool_has_its_kind_and_advice() {
        let table = [
            ("known tx", Rejection::Known, Advice::AskReceipt),
            ("expired", Rejection::Expired, Advice::AwaitFinality),
            ("block ref out of schedule", Rejection::RefAhead, Advice::Rebroadcast),
            ("tx gas exceeds block gas limit", Rejection::GasAboveBlockLimit, Advice::Replan),
            ("size too large", Rejection::TooLarge, Advice::Replan),
            ("unsupported features", Rejection::Reserved, Advice::Replan),
            ("unused reserved slot", Rejection::Reserved, Advice::Replan),
            ("gas price is less than block base fee", Rejection::BaseFee, Advice::Rebroadcast),
            ("insufficient energy", Rejection::InsufficientEnergy, Advice::Rebroadcast),
            (
                "insufficient energy for overall pending cost",
                Rejection::InsufficientEnergy,
                Advice::Rebroadcast,
            ),
            ("account quota exceeded", Rejection::AccountQuota, Advice::Rebroadcast),
            ("delegator quota exceeded", Rejection::DelegatorQuota, Advice::Rebroadcast),
            ("dep reverted", Rejection::DependencyReverted, Advice::Replan),
            ("pool is full", Rejection::PoolFull, Advice::Rebroadcast),
            ("non executable pool is full", Rejection::PoolFull, Advice::Rebroadcast),
            ("tx is not executable", Rejection::NotExecutable, Advice::Rebroadcast),
            (
                "resolve transaction: intrinsic gas exceeds provided gas",
                Rejection::Unresolvable(snippet("intrinsic gas exceeds provided gas")),
                Advice::Replan,
            ),
            (
                "resolve transaction: invalid signature length",
                Rejection::Unresolvable(snippet("invalid signature length")),
                Advice::Replan,
            ),
            ("something new", Rejection::Other(snippet("something new")), Advice::Rebroadcast),
        ];
        for (text, rejection, advice) in table {
            assert_eq!(rejection.advice(), advice, "{text}");
            assert_eq!(classify(403, &format!("tx rejected: {text}\n")), rejected(rejection));
        }
    }

    #[test]
    fn every_other_response_of_a_node_has_its_kind() {
        let signature = |text: &str| bad(BadTransaction::Signature(snippet(text)));
        let encoding = |text: &str| bad(BadTransaction::Encoding(snippet(text)));
        let limit = "options.limit exceeds the maximum allowed value of 1000";
        let many =
            "the number of filtered logs exceeds the maximum allowed value of 1000, please use pagination";
        let range = "filter.Range.To must be greater than or equal to filter.Range.From";
        let table = [
            (400, "bad tx: chain tag mismatch", bad(BadTransaction::ChainTag)),
            (400, "bad tx: intrinsic gas exceeds provided gas", bad(BadTransaction::GasTooLow)),
            (
                400,
                "bad tx: maxFeePerGas is less than maxPriorityFeePerGas",
                bad(BadTransaction::PriorityAboveMax),
            ),
            (400, "bad tx: invalid signature length", signature("invalid signature length")),
            (
                400,
                "bad tx: invalid signature: S value is out of range",
                signature("invalid signature: S value is out of range"),
            ),
            (400, "bad tx: invalid signature recovery id", signature("invalid signature recovery id")),
            (
                400,
                "bad tx: intrinsic gas overflow",
                bad(BadTransaction::Other(snippet("intrinsic gas overflow"))),
            ),
            (400, "raw: hex string without 0x prefix", encoding("hex string without 0x prefix")),
            (400, "raw: transaction type not supported", encoding("transaction type not supported")),
            (400, "raw: typed transaction too short", encoding("typed transaction too short")),
            (
                400,
                "raw: rlp: too few elements for tx.dynamicFeeTransaction",
                encoding("rlp: too few elements for tx.dynamicFeeTransaction"),
            ),
            (400, "body: json: unknown field \"x\"", request(400, "body: json: unknown field \"x\"")),
            (400, "body", request(400, "body")),
            (403, "genesis id mismatch", NodeError::WrongNetwork),
            (400, "id: invalid length", request(400, "id: invalid length")),
            (400, "head: leveldb: not found", NodeError::UnknownBlock),
            (400, "revision: leveldb: not found", NodeError::UnknownBlock),
            (
                400,
                "revision: strconv.ParseUint: parsing \"x\": invalid syntax",
                request(400, "revision: strconv.ParseUint: parsing \"x\": invalid syntax"),
            ),
            (403, limit, request(403, limit)),
            (403, many, request(403, many)),
            (400, range, request(400, range)),
            (410, "Gone", request(410, "Gone")),
            (404, "404 page not found", request(404, "404 page not found")),
            (500, "leveldb: closed", NodeError::Unavailable(snippet("500 leveldb: closed"))),
            (429, "slow down", NodeError::Unavailable(snippet("429 slow down"))),
            (
                502,
                "<html>Bad Gateway</html>",
                NodeError::Unavailable(snippet("502 <html>Bad Gateway</html>")),
            ),
            (
                403,
                "<html>blocked</html>",
                NodeError::NotJson { status: 403, snippet: snippet("<html>blocked</html>") },
            ),
            (302, "moved", NodeError::NotJson { status: 302, snippet: snippet("moved") }),
            (404, "", NodeError::NotJson { status: 404, snippet: snippet("") }),
        ];
        for (status, text, error) in table {
            assert_eq!(classify(status, &format!("{text}\n")), error, "{status} {text}");
        }
    }

    #[test]
    fn only_what_can_pass_by_itself_is_transient() {
        assert!(classify(503, "").is_transient());
        assert!(classify(403, "tx rejected: insufficient energy").is_transient());
        assert!(classify(403, "<html>").is_transient());
        assert!(!classify(403, "tx rejected: known tx").is_transient());
        assert!(!classify(403, "genesis id mismatch").is_transient());
        assert!(!classify(400, "bad tx: chain tag mismatch").is_transient());
    }

    #[test]
    fn a_snippet_is_one_short_line() {
        let shown = Snippet::new(&format!("a\nb\u{1b}[31m{}", "ü".repeat(500))).to_string();
        assert!(shown.starts_with("a b [31m") && shown.chars().count() == 160, "{shown}");
    }
}
