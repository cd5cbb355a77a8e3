//! What the tables have of a payment and of the reading that it is for.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::ids::RewardId;
use schemas::impact::carbon_saved;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

/// A payment that is on its way or made, with its reading.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Proven {
    id: Uuid,
    accepted_at: Option<DateTime<Utc>>,
    reading: Option<Decimal>,
    unit: Option<String>,
    distance_km: Option<Decimal>,
    /// Whether the payment carries an impact: those from before distances were noted do not.
    with_impact: bool,
    vehicle_kind: Option<String>,
    /// `name@version` of each model, joined by commas.
    reader: Option<String>,
    amount: Option<Decimal>,
    tx_id: String,
    tx_status: Option<String>,
    confirmations: Option<i32>,
    block_number: Option<i32>,
    finalized: bool,
}

/// The payment of a reward; none before it has a transaction, since until then nothing links to it.
///
/// The models are those that read this photo, or, where that has been pruned, those that were deployed when it was accepted.
pub(super) async fn find(pool: &PgPool, id: RewardId) -> Result<Option<Proven>, sqlx::Error> {
    sqlx::query_as(
        "select r.id, o.created_at as accepted_at, coalesce(m.final_mileage, m.ai_verified_mileage) as reading,
            m.mileage_unit::text as unit, r.distance_traveled as distance_km,
            p.distance_km is not null as with_impact, o.vehicle_kind,
            coalesce(
                (select reader_version from reading_results x where x.image_hash = o.image_hash
                 order by x.created_at desc limit 1),
                (select string_agg(model_name || '@' || model_version, ',' order by model_name)
                 from (select distinct on (model_name) model_name, model_version from ai_models
                       where deployment_date <= o.created_at order by model_name, deployment_date desc) deployed)
            ) as reader,
            t.amount, t.blockchain_tx_hash as tx_id, t.status::text as tx_status, t.confirmation_count as confirmations,
            t.block_number, b.finalized_at is not null as finalized
         from rewards r
            join odometer_uploads o on o.id = r.upload_id
            left join mileage_data m on m.upload_id = r.upload_id
            join lateral (select * from reward_transactions t where t.reward_id = r.id
                          order by t.attempt_no desc nulls last, t.created_at desc nulls last, t.id desc limit 1) t on true
            left join payouts p on p.reward_id = r.id
            left join blockchain_transactions b on b.tx_hash = t.blockchain_tx_hash
         where r.id = $1",
    )
    .bind(id.0)
    .fetch_optional(pool)
    .await
}

impl Proven {
    /// Whether the chain can undo the payment no more.
    pub(super) fn is_final(&self) -> bool {
        self.finalized && self.tx_status.as_deref() == Some("confirmed")
    }

    /// The places of the page and what stands there.
    pub(super) fn values(&self) -> [(&'static str, String); 12] {
        let unit = self.unit.as_deref().unwrap_or("km");
        let measured = |value: Option<Decimal>, unit: &str| {
            value.map_or_else(|| "not known".to_owned(), |value| format!("{} {unit}", grouped(value)))
        };
        let kind = self.vehicle_kind.as_deref().unwrap_or("unknown");
        let told = self.distance_km.filter(|_| self.with_impact).and_then(|km| carbon_saved(km, kind));
        let carbon = told.map_or_else(
            || "not told with this payment".to_owned(),
            |grams| {
                let grams = grouped(grams.into());
                format!("{grams} g of CO2e, against the same distance with an average petrol car")
            },
        );
        let (state, meaning) = self.state();
        [
            ("state", state),
            ("meaning", meaning.to_owned()),
            ("amount", measured(self.amount, "B3TR")),
            ("distance", measured(self.distance_km, "km")),
            ("reading", measured(self.reading, unit)),
            (
                "date",
                self.accepted_at.map_or_else(|| "not known".into(), |at| at.format("%Y-%m-%d").to_string()),
            ),
            ("vehicle", kind.replace('_', "-")),
            ("carbon", carbon),
            ("reader", self.reader.as_deref().unwrap_or("not known").replace(',', ", ")),
            ("transaction", self.tx_id.clone()),
            (
                "block",
                self.block_number.map_or_else(|| "not in a block yet".into(), |number| number.to_string()),
            ),
            ("reward", self.id.to_string()),
        ]
    }

    fn state(&self) -> (String, &'static str) {
        match self.tx_status.as_deref() {
            _ if self.is_final() => ("Paid, final".into(), "The chain can undo this payment no more."),
            Some("confirmed") => ("Paid".into(), "Twelve blocks confirm this payment."),
            Some("reverted" | "failed") => {
                ("Not paid".into(), "This transaction has paid nothing. The reward is paid by a later one.")
            }
            _ if self.block_number.is_some() => (
                format!("On its way: {} of 12 confirmations", self.confirmations.unwrap_or(0)),
                "The payment is in a block, and counts as made when twelve blocks confirm it.",
            ),
            _ => ("On its way".into(), "The payment is signed and not in a block yet."),
        }
    }
}

/// A number without needless zeros, its whole part in groups of three.
fn grouped(value: Decimal) -> String {
    let text = value.normalize().to_string();
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut shown = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && !shown.ends_with('-') {
            shown.push(',');
        }
        shown.push(digit);
    }
    rest.map_or_else(|| shown.clone(), |rest| format!("{shown}.{rest}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::proofs) fn read_by(reader: &str) -> Proven {
        Proven { reader: Some(reader.into()), ..paid() }
    }

    fn paid() -> Proven {
        Proven {
            id: Uuid::from_u128(1),
            accepted_at: DateTime::from_timestamp(1_772_438_400, 0),
            reading: Some(Decimal::new(12_378_900, 2)),
            unit: Some("km".into()),
            distance_km: Some(Decimal::new(33_300, 2)),
            with_impact: true,
            vehicle_kind: Some("electric".into()),
            reader: Some("locator@1,line@2".into()),
            amount: Some(Decimal::new(333_000_000, 8)),
            tx_id: "0x01".into(),
            tx_status: Some("confirmed".into()),
            confirmations: Some(12),
            block_number: Some(77),
            finalized: false,
        }
    }

    #[test]
    fn numbers_are_grouped_and_bare() {
        let shown = [0, 100, 12_345, 123_456_789, 100_000_000].map(|n| grouped(Decimal::new(n, 2)));
        assert_eq!(shown, ["0", "1", "123.45", "1,234,567.89", "1,000,000"]);
    }

    #[test]
    fn the_state_is_what_the_chain_has_said() {
        let state = |proven: &Proven| proven.state().0;
        let in_block = Proven { tx_status: Some("pending".into()), confirmations: Some(3), ..paid() };
        assert_eq!(state(&in_block), "On its way: 3 of 12 confirmations");
        assert_eq!(state(&Proven { block_number: None, ..in_block }), "On its way");
        assert_eq!(state(&paid()), "Paid");
        assert_eq!(state(&Proven { finalized: true, ..paid() }), "Paid, final");
        // A final revert is no final payment.
        let reverted = Proven { tx_status: Some("reverted".into()), finalized: true, ..paid() };
        assert_eq!((state(&reverted).as_str(), reverted.is_final()), ("Not paid", false));
    }
}
