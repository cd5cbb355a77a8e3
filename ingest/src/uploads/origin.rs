//! Where an upload comes from: how many accounts send photos from the same device, and how many young ones from the same address. The
//! counts alone go into the upload's event. What a device or an address is known by here is a code that nobody can turn back without the
//! key that signs tokens, and it stays in this table.
//!
//! Counted in Postgres as a photo is accepted, by one statement for all that come at the same time, so that it is the same whichever
//! gateway counts. An account of more than a week that names no device costs no statement. Two accounts that come at the same instant at
//! two gateways do not see each other yet: the next photo of either sees both.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt as _;
use hmac::Mac as _;
use schemas::events::OriginFacts;
use schemas::ids::UserId;
use serde_json::json;
use sqlx::{PgExecutor, PgPool};

use super::fields;
use crate::auth::keys::{SigningKey, TokenSigner};
use crate::auth::rate::Key;
use crate::batches::Batches;
use crate::http::operation::Operation;
use crate::http::problem::{ApiError, DEVICE_ID_INVALID, INTERNAL};
use crate::http::request::{Extract, Request};

/// What the secret of the codes is for.
const LABEL: &str = "upload origin";
/// An account is young for this long: as `young_us` of the rules of `fraud_check`.
const YOUNG: TimeDelta = TimeDelta::days(7);
/// A row stays for so long after a photo came from there last: as long as accounts of a device are counted.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Rows of a statement that takes old ones away, which locks them for some milliseconds.
const PORTION: i64 = 1_000;

/// Writes who is not known there, or was seen an hour ago, and counts at most 64 accounts of each origin, those of this statement among
/// them. Rows are locked in the order of their key.
const COUNT: &str = "with asked as materialized (
       select * from unnest($1::bytea[], $2::uuid[], $3::timestamptz[], $4::boolean[], $5::bigint[])
         as asked (origin, user_id, at, of_address, place)
     ), stale as (
       select user_id, origin, max(at) as at from asked
       where not exists (select from upload_origins o where o.user_id = asked.user_id and o.origin = asked.origin
                           and o.seen_at > asked.at - interval '1 hour')
       group by user_id, origin
     ), written as (
       insert into upload_origins as o (user_id, origin, seen_at) select user_id, origin, at from stale order by user_id, origin
       on conflict (user_id, origin) do update set seen_at = greatest(o.seen_at, excluded.seen_at)
     )
     select asked.place, asked.of_address, least(count(*), 64)::int from asked cross join lateral (
       (select o.user_id from upload_origins o
        where not asked.of_address and o.origin = asked.origin and o.seen_at > asked.at - interval '30 days'
        order by o.seen_at desc limit 64)
       union
       (select o.user_id from upload_origins o join users u on u.id = o.user_id
        where asked.of_address and o.origin = asked.origin and o.seen_at > asked.at - interval '24 hours'
          and u.created_at > asked.at - interval '7 days'
        order by o.seen_at desc limit 64)
       union
       select beside.user_id from asked beside where beside.origin = asked.origin
     ) accounts
     group by asked.place, asked.of_address";

/// `X-Device-Id`, where it is sent: what the client calls the device it runs on, the same for every account on it.
pub(crate) struct DeviceId(Option<String>);

impl<S: Sync> Extract<S> for DeviceId {
    async fn extract(_state: &S, request: &mut Request) -> Result<Self, ApiError> {
        let sent = request.headers.get("x-device-id");
        let id = sent.map(|value| fields::device_id(value.to_str().unwrap_or_default()));
        Ok(Self(id.transpose()?))
    }

    fn describe(operation: &mut Operation) {
        operation.parameter(
            "header",
            "X-Device-Id",
            json!({ "type": "string", "minLength": 1, "maxLength": 128 }),
            "A random id that the client has made once for this device and keeps; how many accounts send photos under it is counted, and \
             neither it nor a hash of it is in any record",
        );
        operation.problems(&[DEVICE_ID_INVALID]);
    }
}

/// Where a photo comes from.
pub(crate) struct SentFrom {
    pub(crate) device: DeviceId,
    pub(crate) address: IpAddr,
}

/// A device or an address, as it is known here.
type Code = [u8; 32];

/// What is counted for an upload.
#[derive(Clone)]
struct Asked {
    user: UserId,
    at: DateTime<Utc>,
    device: Option<Code>,
    address: Option<Code>,
}

/// Counts accounts by where they send photos from.
pub(crate) struct Origins {
    pool: PgPool,
    signer: TokenSigner,
    batches: Batches<Asked, OriginFacts>,
}

impl Origins {
    /// Counts in a database, under the key of a signer; nothing is counted where it has none.
    pub(crate) fn new(pool: PgPool, signer: TokenSigner) -> Self {
        let batches = Batches::of(&pool, |connection, asked| count(connection, asked).boxed());
        Self { pool, signer, batches }
    }

    /// How many accounts send from where this one does, this one counted; none where nothing is known of that. `created_at` is the
    /// account's.
    pub(crate) async fn count(
        &self,
        (user, created_at): (UserId, Option<DateTime<Utc>>),
        from: &SentFrom,
        at: DateTime<Utc>,
    ) -> Result<Option<OriginFacts>, ApiError> {
        let Some(key) = self.signer.key() else { return Ok(None) };
        let device = from.device.0.as_ref().and_then(|id| code(&key, b"device/", id.as_bytes()));
        let is_young = created_at.is_some_and(|created| created > at - YOUNG);
        let address = network(from.address).filter(|_| is_young);
        let address = address.and_then(|network| code(&key, b"address/", &network));
        if device.is_none() && address.is_none() {
            return Ok(None);
        }
        let asked = Asked { user, at, device, address };
        if let Some(facts) = self.batches.ask(asked.clone()).await? {
            return Ok(Some(facts));
        }
        let facts = count(&self.pool, std::slice::from_ref(&asked)).await?.pop();
        facts.map(Some).ok_or_else(|| INTERNAL.error())
    }
}

/// Of another kind, or under another key, the same bytes have another code.
fn code(key: &SigningKey, kind: &[u8], bytes: &[u8]) -> Option<Code> {
    Some(key.code(LABEL)?.chain_update(kind).chain_update(bytes).finalize().into_bytes().into())
}

/// The bytes of an address that stands for one place in the internet: of IPv4 whole, of IPv6 its first 64 bits. One of a private network
/// is that of a proxy which is not named in the configuration, and stands for everybody.
fn network(address: IpAddr) -> Option<Vec<u8>> {
    match Key::network(address) {
        IpAddr::V4(v4) => (!is_inner(v4)).then(|| v4.octets().to_vec()),
        IpAddr::V6(v6) => {
            let is_inner = v6.is_unicast_link_local() || v6.is_unique_local();
            // Nothing is left of the loopback's address but zeros.
            (!is_inner && !v6.is_unspecified()).then(|| v6.octets()[..8].to_vec())
        }
    }
}

/// Also what carriers use inside their networks, 100.64.0.0/10 (RFC 6598).
fn is_inner(v4: Ipv4Addr) -> bool {
    let [first, second, ..] = v4.octets();
    let of_carriers = first == 100 && second & 0xC0 == 64;
    v4.is_private() || v4.is_loopback() || v4.is_link_local() || first == 0 || of_carriers
}

/// The counts of each, in order.
async fn count(executor: impl PgExecutor<'_>, asked: &[Asked]) -> Result<Vec<OriginFacts>, sqlx::Error> {
    let places = (0_i64..).zip(asked).flat_map(|(place, asked)| {
        let origins = [(asked.device, false), (asked.address, true)];
        origins
            .into_iter()
            .filter_map(move |(origin, of_address)| Some((place, asked, origin?.to_vec(), of_address)))
    });
    let places: Vec<_> = places.collect();
    let counted: Vec<(i64, bool, i32)> = sqlx::query_as(COUNT)
        .bind(places.iter().map(|(_, _, origin, _)| origin.as_slice()).collect::<Vec<_>>())
        .bind(places.iter().map(|(_, asked, ..)| asked.user.0).collect::<Vec<_>>())
        .bind(places.iter().map(|(_, asked, ..)| asked.at).collect::<Vec<_>>())
        .bind(places.iter().map(|(.., of_address)| *of_address).collect::<Vec<_>>())
        .bind(places.iter().map(|(place, ..)| *place).collect::<Vec<_>>())
        .fetch_all(executor)
        .await?;
    let counted: HashMap<(i64, bool), i32> =
        counted.into_iter().map(|(place, of_address, accounts)| ((place, of_address), accounts)).collect();
    let facts = |place| OriginFacts {
        accounts_of_device: counted.get(&(place, false)).copied(),
        young_accounts_of_address: counted.get(&(place, true)).copied(),
    };
    Ok((0_i64..).zip(asked).map(|(place, _)| facts(place)).collect())
}

/// Takes away what is old by now.
pub(crate) async fn prune(pool: &PgPool, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    loop {
        let pruned = sqlx::query(
            "delete from upload_origins where ctid = any(array(
               select ctid from upload_origins where seen_at < $1 order by seen_at limit $2 for update skip locked))",
        )
        .bind(now - KEPT)
        .bind(PORTION)
        .execute(pool)
        .await?;
        if pruned.rows_affected() < PORTION.unsigned_abs() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Option<Vec<u8>> {
        network(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_whole_of_ipv4_and_64_bits_of_ipv6_and_none_where_it_is_no_place_in_the_internet() {
        assert_eq!(of("203.0.113.9").unwrap(), [203, 0, 113, 9]);
        assert_eq!(of("::ffff:203.0.113.9"), of("203.0.113.9"));
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        for inner in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
        ] {
            assert_eq!(of(inner), None, "{inner}");
        }
        assert!(of("100.128.0.1").is_some() && of("172.32.0.1").is_some());
    }

    #[tokio::test]
    async fn without_a_key_that_signs_nothing_is_counted() {
        let pool = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
        let origins = Origins::new(pool, TokenSigner::default());
        let from = SentFrom { device: DeviceId(Some("x".to_owned())), address: [203, 0, 113, 9].into() };
        let now = DateTime::from_timestamp(1_770_000_000, 0).unwrap();
        let counted = origins.count((UserId(uuid::Uuid::nil()), Some(now)), &from, now).await;
        assert_eq!(counted.unwrap(), None);
    }

    #[test]
    fn a_code_is_of_one_kind_and_one_key() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let device = code(&key, b"device/", b"x");
        assert_eq!(device, code(&key, b"device/", b"x"));
        assert!(device != code(&key, b"address/", b"x") && device != code(&other, b"device/", b"x"));
    }
}
