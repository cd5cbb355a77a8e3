//! The file of a version: TOML, every key known, every fault with its line.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use schemas::events::LimitType;
use serde::Deserialize;
use toml::Spanned;

use super::RewardRules;
use super::bonuses::{self, BonusTable};
use super::faults::{Fault, Faults};
use crate::limit_check::policy::{OverBudget, Policy};
use crate::reward_calculation::bonus::{Bonus, Fact};
use crate::reward_calculation::tariff::{Rate, Tariff};

/// The kind whose rate holds for every kind that no tariff names.
const OTHER: &str = "unknown";
/// Characters of a version's name.
const VERSION_MAX: usize = 40;
/// Most B3TR per kilometre.
const RATE_MAX: Decimal = Decimal::from_parts(1000, 0, 0, false, 0);
/// Decimals of a rate, as its column has them.
const RATE_DECIMALS: u32 = 4;

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Spanned<String>,
    upload_cap: Spanned<String>,
    tariff: Vec<TariffTable>,
    #[serde(default)]
    bonus: Vec<BonusTable>,
    budgets: Spanned<BudgetsTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TariffTable {
    kinds: Spanned<Vec<Spanned<String>>>,
    rate: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BudgetsTable {
    daily: Spanned<String>,
    weekly: Spanned<String>,
    monthly: Spanned<String>,
    over: Spanned<String>,
    pool_daily: Option<Spanned<String>>,
    pool_weekly: Option<Spanned<String>>,
    pool_monthly: Option<Spanned<String>>,
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong in it, by line. Where it is no TOML of this form, that alone.
pub fn parse(text: &str) -> Result<RewardRules, Vec<Fault>> {
    let mut faults = Faults::of(text);
    let document: Document = match toml::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            faults.note(error.span().unwrap_or_default(), error.message().replace('\n', ", "));
            return Err(faults.found());
        }
    };
    let version = document.version.get_ref();
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if version.is_empty() || version.len() > VERSION_MAX || !version.chars().all(named) {
        let text =
            format!("version {version:?} has other than 1 to {VERSION_MAX} of a-z, 0-9, \"-\", \".\", \"_\"");
        faults.note(document.version.span(), text);
    }
    let tariff = Tariff {
        version: version.clone(),
        rates: BTreeMap::new(),
        other_rate: Rate(0),
        bonuses: bonuses::read(&document.bonus, &mut faults),
        upload_cap: faults.amount("upload_cap", &document.upload_cap),
    };
    let tariff = with_rates(tariff, &document, &mut faults);
    let policy = budgets(version, &document.budgets, &mut faults);
    let found = faults.found();
    if found.is_empty() { Ok(RewardRules { tariff, policy }) } else { Err(found) }
}

/// A rate for each kind, and one for those that are not named.
fn with_rates(tariff: Tariff, document: &Document, faults: &mut Faults<'_>) -> Tariff {
    let (mut rates, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for table in &document.tariff {
        let rate = faults.number("rate", &table.rate, (RATE_MAX, RATE_DECIMALS, false));
        let units = (rate * Decimal::from(10_000)).normalize();
        let rate = Rate(u32::try_from(units).unwrap_or_default());
        if table.kinds.get_ref().is_empty() {
            faults.note(table.kinds.span(), "the tariff is for no kind of vehicle");
        }
        for kind in table.kinds.get_ref() {
            faults.kind(kind);
            if !seen.insert(kind.get_ref().as_str()) {
                let text = format!("the tariffs of {:?} overlap: it has a rate above", kind.get_ref());
                faults.note(kind.span(), text);
            }
            rates.insert(kind.get_ref().clone(), rate);
        }
    }
    let other = rates.get(OTHER).copied();
    if other.is_none() {
        let text = "no tariff is for \"unknown\", whose rate holds for every kind that is not named";
        faults.note(document.tariff.first().map_or(0..0, |table| table.kinds.span()), text);
    }
    Tariff { rates, other_rate: other.unwrap_or(Rate(0)), ..tariff }
}

/// What a user is granted in a day, a week and a month.
fn budgets(version: &str, table: &Spanned<BudgetsTable>, faults: &mut Faults<'_>) -> Policy {
    let budgets = table.get_ref();
    let [daily, weekly, monthly] =
        [("daily", &budgets.daily), ("weekly", &budgets.weekly), ("monthly", &budgets.monthly)]
            .map(|(name, written)| faults.amount(name, written));
    for (name, less, written, more) in
        [("weekly", daily, &budgets.weekly, weekly), ("monthly", daily, &budgets.monthly, monthly)]
    {
        if more < less {
            faults.note(written.span(), format!("{name} {more} is below daily {less}"));
        }
    }
    let over = match budgets.over.get_ref().as_str() {
        "partial" => OverBudget::Partial,
        "nothing" => OverBudget::Nothing,
        other => {
            let text = format!("over {other:?} is neither \"partial\" nor \"nothing\"");
            faults.note(budgets.over.span(), text);
            OverBudget::Nothing
        }
    };
    let pools = pools(budgets, faults);
    Policy { version: version.to_owned(), daily, weekly, monthly, over, pools }
}

/// What all users together are paid, where the file says so.
fn pools(budgets: &BudgetsTable, faults: &mut Faults<'_>) -> Vec<(LimitType, Decimal)> {
    let written = [
        ("pool_daily", LimitType::Daily, budgets.pool_daily.as_ref()),
        ("pool_weekly", LimitType::Weekly, budgets.pool_weekly.as_ref()),
        ("pool_monthly", LimitType::Monthly, budgets.pool_monthly.as_ref()),
    ];
    written
        .into_iter()
        .filter_map(|(name, limit_type, written)| Some((limit_type, faults.amount(name, written?))))
        .collect()
}

/// What [`FIRST`](super::FIRST) says, as code: nothing can go wrong with it.
pub(super) fn first() -> RewardRules {
    let rates = [
        ("petrol", 100),
        ("diesel", 100),
        ("unknown", 100),
        ("lpg", 120),
        ("hybrid", 150),
        ("plug_in", 200),
        ("electric", 250),
    ];
    let level = |level: &str, percent: u32| Bonus {
        name: format!("{level} account"),
        fact: Fact::Level(level.to_owned()),
        percent: percent.into(),
        at_most: None,
    };
    RewardRules {
        tariff: Tariff {
            version: "1".to_owned(),
            rates: rates.map(|(kind, rate)| (kind.to_owned(), Rate(rate))).into(),
            other_rate: Rate(100),
            bonuses: vec![level("verified", 5), level("premium", 10)],
            upload_cap: Decimal::from(20),
        },
        policy: Policy {
            version: "1".to_owned(),
            daily: Decimal::from(30),
            weekly: Decimal::from(100),
            monthly: Decimal::from(300),
            over: OverBudget::Partial,
            pools: Vec::new(),
        },
    }
}
