use super::*;

/// A line whose characters stand evenly.
fn glyphs(text: &str) -> Vec<Glyph> {
    let count = text.chars().count() as f32;
    let glyph = |(index, character)| Glyph { character, at: (index as f32 + 0.5) / count, probability: 1.0 };
    text.chars().enumerate().map(glyph).collect()
}

fn found(text: &str) -> Vec<(String, f32)> {
    numbers(0, &glyphs(text)).into_iter().map(|number| (number.text, number.weight)).collect()
}

fn weight(text: &str) -> f32 {
    found(text).iter().map(|(_, weight)| *weight).fold(0.0, f32::max)
}

fn texts(text: &str) -> Vec<String> {
    found(text).into_iter().map(|(text, _)| text).collect()
}

#[test]
fn a_number_of_four_to_seven_digits_may_be_a_mileage_and_six_are_the_likeliest() {
    assert_eq!(texts("ODO 123456 km"), ["123456"]);
    assert_eq!(texts("0000042"), ["0000042"]);
    assert!(texts("123").is_empty() && texts("12345678").is_empty());
    assert!(weight("123456") > weight("12345") && weight("12345") > weight("1234567"));
    assert!(weight("1234567") > weight("1234"));
}

#[test]
fn thousands_are_joined_whatever_separates_them() {
    for text in ["128,456", "128.456", "128 456", "128'456"] {
        assert_eq!(texts(text), ["128456"], "{text}");
    }
    assert_eq!(texts("1,128,456 km"), ["1128456"]);
}

#[test]
fn wheels_with_spaces_between_are_one_number_and_numbers_far_apart_are_two() {
    assert_eq!(texts("1 2 3 4 5 6"), ["123456"]);
    assert_eq!(texts("1234 5678"), ["1234", "5678"]);
}

#[test]
fn clocks_speeds_ratios_and_temperatures_are_no_mileage() {
    for text in ["1234:56", "12:3456", "1200 km/h", "4000rpm", "x1000 r/min", "1000/km", "1234°C", "0.1234"]
    {
        assert!(texts(text).is_empty(), "{text}");
    }
}

#[test]
fn neighbours_on_a_speed_scale_weigh_next_to_nothing() {
    assert!(weight("120 140") < 0.1 && weight("80 100") < 0.1 && weight("220 200 180") < 0.1);
    assert!(weight("100120") < 0.1 && weight("80100") < 0.1 && weight("6080") < 0.1);
    assert!(weight("120 145") > 0.5 && weight("100125") > 0.5 && weight("100180") > 0.5);
}

#[test]
fn a_decimal_behind_four_digits_is_a_trip_meter_and_behind_five_an_odometer() {
    assert!(weight("1234.5") < 0.1);
    assert!(weight("12345.6") > 0.5);
    assert_eq!(texts("123456.7"), ["123456"]);
}

#[test]
fn a_hole_between_digits_makes_a_number_unlikely() {
    let mut holed = glyphs("123456");
    holed.remove(3);
    let number = &numbers(0, &holed)[0];
    assert!(number.text == "12356" && number.weight < 0.5, "{number:?}");
}

fn line(text: &str, left: f32, top: f32, tall: f32) -> Read {
    let (right, bottom) = (left + tall * 0.6 * text.len() as f32, top + tall);
    Read { quad: [[left, top], [right, top], [right, bottom], [left, bottom]], glyphs: glyphs(text) }
}

fn best(lines: &[Read]) -> Number {
    let texts: Vec<String> = lines.iter().map(|line| crate::recognise::text(&line.glyphs)).collect();
    candidates(lines, &texts).remove(0)
}

#[test]
fn the_unit_is_taken_from_the_line_or_from_beside_it() {
    assert_eq!(best(&[line("123456 km", 0.0, 0.0, 40.0)]).unit, Some(Unit::Km));
    assert_eq!(best(&[line("123456mi", 0.0, 0.0, 40.0)]).unit, Some(Unit::Miles));
    assert_eq!(
        best(&[line("123456", 0.0, 0.0, 40.0), line("miles", 160.0, 5.0, 30.0)]).unit,
        Some(Unit::Miles)
    );
    assert_eq!(best(&[line("123456", 0.0, 0.0, 40.0), line("km", 40.0, -35.0, 30.0)]).unit, Some(Unit::Km));
    assert_eq!(best(&[line("123456", 0.0, 0.0, 40.0), line("km", 400.0, 300.0, 30.0)]).unit, None);
    assert_eq!(best(&[line("123456", 0.0, 0.0, 40.0), line("km/h", 160.0, 0.0, 30.0)]).unit, None);
}

#[test]
fn a_trip_meter_loses_to_the_total_and_a_small_number_to_a_large_one() {
    let trip = [line("TRIP 45678", 0.0, 0.0, 40.0), line("ODO 12345", 0.0, 100.0, 40.0)];
    assert_eq!(best(&trip).text, "12345");
    let labelled =
        [line("45678", 0.0, 0.0, 40.0), line("TRIP", 130.0, 0.0, 40.0), line("12345", 0.0, 200.0, 40.0)];
    assert_eq!(best(&labelled).text, "12345");
    let sizes = [line("345678", 0.0, 0.0, 14.0), line("123456", 0.0, 100.0, 40.0)];
    assert_eq!(best(&sizes).text, "123456");
}

#[test]
fn a_number_is_extended_by_digits_at_its_own_distance_and_by_no_others() {
    let at = |places: &[f32]| {
        let glyph = |(character, at): (char, &f32)| Glyph { character, at: *at, probability: 1.0 };
        "123456".chars().zip(places).map(glyph).collect::<Vec<_>>()
    };
    let all = [0, 1, 2, 3, 4, 5];
    let even = at(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
    assert!(extends("2345", &even, &all) && extends("12345", &even, &all));
    assert!(!extends("123456", &even, &all) && !extends("99", &even, &all));
    let scale = at(&[0.1, 0.2, 0.3, 0.4, 0.55, 0.6]);
    assert!(!extends("1234", &scale, &all));
}

#[test]
fn a_number_among_words_that_no_dashboard_has_is_seen_but_never_sure() {
    let weight = |lines: &[Read]| best(lines).weight;
    let alone = weight(&[line("123456", 0.0, 0.0, 40.0)]);
    assert!(weight(&[line("AUTH 123456", 0.0, 0.0, 40.0)]) <= ELSEWHERE * alone);
    let beside = [line("ZIP", -85.0, 0.0, 40.0), line("123456", 0.0, 0.0, 40.0)];
    assert!(weight(&beside) <= ELSEWHERE * alone);
    assert!(weight(&[line("ODO 123456 km", 0.0, 0.0, 40.0)]) >= alone);
    let mut receipt = vec![line("123456", 0.0, 0.0, 40.0)];
    receipt.extend(["THANK YOU", "PUMP 7", "CARD"].map(|text| line(text, 0.0, 300.0, 40.0)));
    assert!(weight(&receipt) <= ELSEWHERE * alone);
    for dashboard in [["RANGE", "km/h", "P R N D", "CHECK ENGINE"], ["", "Ege FM", "26 Kasim", "x"]] {
        let dashboard = dashboard.map(|text| line(text, 0.0, 300.0, 40.0));
        assert_eq!(weight(&[vec![line("123456", 0.0, 0.0, 40.0)], dashboard.to_vec()].concat()), alone);
    }
    let menu = ["Phone settings", "Bluetooth audio"].map(|text| line(text, 0.0, 300.0, 20.0));
    assert_eq!(weight(&[vec![line("123456", 0.0, 0.0, 40.0)], menu.to_vec()].concat()), alone);
}

#[test]
fn four_digits_need_a_unit_and_a_word_for_the_total() {
    let weight = |text: &str| best(&[line(text, 0.0, 0.0, 40.0)]).weight;
    assert!(weight("ODO 1785 km") > 0.48 && weight("1785 km") < 0.48 && weight("ODO 1785") < 0.48);
}
