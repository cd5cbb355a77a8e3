//! Files of rules that are taken and refused, and which version is in force.

use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::LimitType;
use schemas::ids::Micros;

use super::*;
use crate::reward_calculation::bonus::Fact;
use crate::reward_calculation::tariff::Rate;

const SAMPLE: &str = include_str!("../../../examples/reward-rules.toml");

/// The faults of the sample with one piece of text replaced, and the number of the line that the replacement stands in.
fn faults_with(from: &str, to: &str) -> (Vec<String>, usize) {
    let at = SAMPLE.find(from).unwrap_or_else(|| panic!("{from} is not in the sample"));
    let line = SAMPLE[..at].matches('\n').count() + 1;
    let faults = parse(&SAMPLE.replacen(from, to, 1)).expect_err(to);
    (faults.iter().map(ToString::to_string).collect(), line)
}

/// The one fault of such a file, which is in the line of the replacement.
fn fault(from: &str, to: &str) -> String {
    let (faults, line) = faults_with(from, to);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let text = faults[0].strip_prefix(&format!("line {line}: "));
    text.unwrap_or_else(|| panic!("{} is not about line {line}", faults[0])).to_owned()
}

#[test]
fn the_first_rules_are_what_their_file_says() {
    assert_eq!(parse(FIRST), Ok(file::first()));
}

#[test]
fn the_sample_has_every_kind_of_bonus() {
    let rules = parse(SAMPLE).unwrap();
    assert_eq!(rules.tariff.rate("electric"), Rate(300));
    assert_eq!(rules.tariff.rate("hovercraft"), rules.tariff.rate("unknown"));
    let facts: Vec<&Fact> = rules.tariff.bonuses.iter().map(|bonus| &bonus.fact).collect();
    assert!(facts.contains(&&Fact::FirstOfWeek) && facts.contains(&&Fact::Streak { weeks: 4 }), "{facts:?}");
    assert!(facts.iter().any(|fact| matches!(fact, Fact::Campaign { kinds, .. } if kinds == &["electric"])));
    assert_eq!(rules.policy.version, rules.version());
    let pools = [(LimitType::Weekly, 20_000.into()), (LimitType::Monthly, 60_000.into())];
    assert_eq!(rules.policy.pools, pools);
}

#[test]
fn what_is_wrong_in_a_file_is_refused_with_its_line() {
    let unknown = fault("upload_cap = ", "upload_cup = ");
    assert!(unknown.contains("unknown field `upload_cup`"), "{unknown}");
    assert!(fault("rate = \"0.012\"", "rate = 0.012").contains("expected a string"));
    assert_eq!(fault("rate = \"0.012\"", "rate = \"-0.012\""), "rate -0.012 is negative");
    assert_eq!(fault("rate = \"0.012\"", "rate = \"0.01234\""), "rate 0.01234 has more than 4 decimals");
    for no_number in ["1e3", "+1", ".5", "NaN", "", "1,5", "--1"] {
        let text = fault("rate = \"0.012\"", &format!("rate = {no_number:?}"));
        assert!(text.ends_with("is no number such as \"0.25\""), "{text}");
    }
    assert_eq!(fault("kinds = [\"lpg\"]", "kinds = []"), "the tariff is for no kind of vehicle");
    assert_eq!(
        fault("kinds = [\"lpg\"]", "kinds = [\"petrol\"]"),
        "the tariffs of \"petrol\" overlap: it has a rate above"
    );
    assert!(fault("kinds = [\"lpg\"]", "kinds = [\"steam\"]").starts_with("\"steam\" is no kind of vehicle"));
    assert!(fault("fact = \"streak\"", "fact = \"moon\"").starts_with("fact \"moon\" names nothing"));
    assert!(fault("level = \"premium\"", "level = \"gold\"").starts_with("level \"gold\" names nothing"));
    assert_eq!(
        fault("fact = \"first_of_week\"", "weeks = 4\nfact = \"first_of_week\""),
        "weeks belongs to a bonus with fact = \"streak\", not \"first_of_week\""
    );
    assert_eq!(fault("weeks = 4", "weeks = 1"), "weeks 1 is not between 2 and 52");
    assert!(fault("percent = \"7.5\"", "percent = \"-7.5\"").contains("negative"));
    assert!(fault("percent = \"7.5\"", "percent = \"0\"").contains("is 0"));
    assert!(fault("2026-06-01T00:00:00Z", "2026-06-01").contains("is no instant"));
    assert!(fault("until = \"2026-06-01", "until = \"2026-02-01").contains("the window names nothing"));
    assert!(fault("over = \"partial\"", "over = \"sometimes\"").contains("neither"));
    assert!(fault("weekly = \"100\"", "weekly = \"10\"").contains("below daily"));
    assert_eq!(fault("pool_weekly = \"", "pool_weekly = \"-"), "pool_weekly -20000 is negative");
    assert!(fault("version = \"", "version = \"A ").contains("has other than"));
}

#[test]
fn bonuses_for_one_fact_overlap_and_every_fault_of_a_file_is_told() {
    let (faults, _) = faults_with("level = \"premium\"", "level = \"verified\"");
    assert!(faults[0].ends_with("the bonuses for level verified overlap: there is one above"), "{faults:?}");
    let (faults, _) = faults_with("weeks = 12", "weeks = 4");
    assert!(faults[0].contains("the bonuses for streak of 4 weeks overlap"), "{faults:?}");
    let both = SAMPLE.replacen("weeks = 4", "weeks = 0", 1).replacen("rate = \"0.012\"", "rate = \"-1\"", 1);
    assert_eq!(parse(&both).unwrap_err().len(), 2);
    assert_eq!(parse("").unwrap_err()[0].line, 1);
    assert_eq!(parse("\n\nversion = ").unwrap_err()[0].line, 3);
}

/// The first rules under another name and rate.
fn version(n: u32) -> RewardRules {
    let mut rules = file::first();
    rules.tariff.version = format!("v{n}");
    rules.tariff.rates.insert("petrol".into(), Rate(n));
    rules
}

proptest! {
    #![proptest_config(crate::properties::tried(2_048))]

    #[test]
    fn the_version_in_force_is_the_last_that_began_by_the_acceptance_whenever_it_is_asked_for(
        from in prop::collection::btree_set(-50_i64..50, 0..6),
        at in -60_i64..60,
        seen in 0_usize..6,
    ) {
        let later: Vec<_> = (2..).zip(&from).map(|(n, from)| (Micros(*from), version(n))).collect();
        let begun = later.iter().filter(|(from, _)| from.0 <= at).count();
        let expected = if begun == 0 { "1".to_owned() } else { format!("v{}", begun + 1) };
        let mut turned = later.clone();
        turned.reverse();
        for later in [later.clone(), turned] {
            let book = Rulebook::with(later);
            prop_assert_eq!(book.in_force(Micros(at)).version(), expected.as_str());
        }
        // A stage that has not seen the newest versions yet decides the same, as these begin after what it is asked about.
        let known: Vec<_> = later.iter().take(seen.max(begun)).cloned().collect();
        let book = Rulebook::with(known);
        prop_assert_eq!(book.in_force(Micros(at)).version(), expected.as_str());
    }

    #[test]
    fn no_file_makes_the_parser_panic_and_every_fault_has_a_line_of_the_file(
        lines in prop::collection::vec(prop_oneof![Just(None), any::<prop::sample::Index>().prop_map(Some)], 0..80),
        noise in "\\PC{0,40}",
    ) {
        let whole: Vec<&str> = SAMPLE.lines().collect();
        let text: String = lines
            .iter()
            .map(|line| line.map_or(noise.as_str(), |line| whole[line.index(whole.len())]).to_owned() + "\n")
            .collect();
        if let Err(faults) = parse(&text) {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                prop_assert!(fault.line >= 1 && fault.line <= text.lines().count() + 1, "{}", fault);
            }
        }
    }

    #[test]
    fn a_rate_is_what_its_text_says_or_refused(units in -20_000_000_i64..20_000_000, scale in 0_u32..8) {
        let rate = Decimal::new(units, scale);
        let parsed = parse(&SAMPLE.replacen("0.012", &rate.to_string(), 1));
        let fits = (Decimal::ZERO..=Decimal::from(1000)).contains(&rate) && rate.normalize().scale() <= 4 && !rate.is_sign_negative();
        prop_assert_eq!(parsed.is_ok(), fits);
        if let Ok(rules) = parsed {
            prop_assert_eq!(rules.tariff.rate("lpg").per_km(), rate.normalize());
        }
    }
}
