//! Days of many drivers, honest and dishonest, made by rule from fixed seeds; how many of their photos are refused, seen by a person and
//! paid for. The table is in `docs/fraud-corpus.md`, and bars hold it: a rule that catches more must not refuse more of the honest.

use std::fmt::Write as _;

use proptest::test_runner::{RngAlgorithm, TestRng};
use schemas::events::{CameraFacts, OriginFacts, Review};

use super::*;
use crate::fraud_check::conduct::{Became, Conduct};
use crate::fraud_check::facts::Before;

const HOUR_US: i64 = DAY_US / 24;
/// Drivers of each kind.
const DRIVERS: u64 = 100;
/// Days of each driver, with a photo a day.
const DAYS: i64 = 30;
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fraud-corpus.md");

/// A driver's photos to come, in the order in which they are sent.
struct Days {
    dice: TestRng,
    driver: u64,
    events: Vec<OdometerRead>,
    /// Tenths of a kilometre on the odometer.
    tenths: i64,
}

impl Days {
    fn of(kind: usize, driver: u64) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&driver.to_le_bytes());
        seed[8] = u8::try_from(kind).unwrap();
        let mut dice = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let tenths = 100_000 + i64::try_from(dice.next_u64() % 2_000_000).unwrap();
        Self { dice, driver, events: Vec::new(), tenths }
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.dice.next_u64() % u64::try_from(to - from).unwrap()).unwrap()
    }

    fn one_in(&mut self, times: i64) -> bool {
        self.between(0, times) == 0
    }

    /// A day's driving: 5 to 90 km.
    fn drive(&mut self) {
        self.tenths += self.between(50, 900);
    }

    /// A photo of this many tenths, sent on a day at about noon and taken some minutes before. Every second one is unsure, as of real
    /// photos (`reading/models/README.md`); one in 1,000 is sure and has a digit misread, of which no measurement has found one in 300.
    fn photo(&mut self, day: i64, tenths: i64) -> &mut OdometerRead {
        let mut event = good();
        let (minutes, ago) = (self.between(0, 600), self.between(0, 20));
        event.header.user_id = UserId(Uuid::from_u128(u128::from(self.driver)));
        event.header.upload_id = UploadId(Uuid::from_u128(1 + self.events.len() as u128));
        event.header.accepted_at.0 += day * DAY_US + minutes * HOUR_US / 60;
        // The camera of every second driver writes no zone, which is two hours east.
        let zone_known = self.driver.is_multiple_of(2);
        let captured_at = Micros(event.header.accepted_at.0 - ago * HOUR_US / 60);
        let taken_at = Some(Micros(captured_at.0 + if zone_known { 0 } else { 2 * HOUR_US }));
        event.stamp.captured_at = Some(captured_at);
        event.stamp.camera = Some(CameraFacts { taken_at, zone_known, edited_by: None });
        let confidence = if self.one_in(2) { "0.71" } else { "0.96" };
        let misread = if self.one_in(1_000) { 1_000 * self.between(1, 9) } else { 0 };
        let value = Decimal::new(tenths + misread, 1).trunc().to_string();
        reads(&mut event, &[(&value, Some(Unit::Km), confidence)]);
        self.events.push(event);
        self.events.last_mut().unwrap()
    }

    /// The photo of an honest day.
    fn honest(&mut self, day: i64) -> &mut OdometerRead {
        self.drive();
        let tenths = self.tenths;
        self.photo(day, tenths)
    }

    /// A photo of a car that is so many tenths of a kilometre further.
    fn stranger(&mut self, day: i64, from: i64, to: i64) -> &mut OdometerRead {
        let tenths = self.tenths + self.between(from, to);
        self.photo(day, tenths)
    }
}

/// How a kind of driver spends a day; what is a fraud of it stands in `counted`.
struct Kind {
    name: &'static str,
    /// Whether the photos that count are to be refused.
    dishonest: bool,
    day: fn(&mut Days, i64),
    /// Which photos count: of a dishonest driver those after the first week, which they spend like anybody.
    counted: fn(&OdometerRead) -> bool,
    /// At most so many of a thousand are refused of the honest, at least so many not paid for of the dishonest.
    bar: usize,
}

/// The photo that a fraud is about.
const FRAUD: &str = "fraud";

fn marked(event: &OdometerRead) -> bool {
    event.stamp.region == FRAUD
}

/// Moves a photo in time.
fn moved(event: &mut OdometerRead, by_us: i64) {
    event.header.accepted_at.0 += by_us;
    event.stamp.captured_at = event.stamp.captured_at.map(|at| Micros(at.0 + by_us));
    let camera = event.stamp.camera.as_mut().unwrap();
    camera.taken_at = camera.taken_at.map(|at| Micros(at.0 + by_us));
}

/// Spends the first week and two of three later days honestly, the third with a fraud.
fn third_day(days: &mut Days, day: i64, fraud: fn(&mut Days, i64) -> &mut OdometerRead) {
    if day < 7 || day % 3 != 0 {
        days.honest(day);
    } else {
        fraud(days, day).stamp.region = FRAUD.to_owned();
    }
}

/// Of a thousand photos of a screen, so many in which its grid is seen: 51 of 112 that were drawn (ADR 39).
const SCREENS_SEEN: i64 = 455;

/// A photo whose number was edited.
fn edited(days: &mut Days, day: i64) -> &mut OdometerRead {
    days.tenths += days.between(300, 3_000);
    days.honest(day)
}

const KINDS: [Kind; 22] = [
    Kind {
        name: "commutes, a photo a day",
        dishonest: false,
        day: |days, day| {
            days.honest(day);
        },
        counted: |_| true,
        bar: 8,
    },
    Kind {
        name: "types the mileage, two figures exchanged now and then",
        dishonest: false,
        day: |days, day| {
            let slip = if days.one_in(40) { 90 } else { 0 };
            let event = days.honest(day);
            let value = event.reading.as_ref().unwrap().best.as_ref().unwrap().value;
            event.stamp.claimed_mileage = Some(value + Decimal::from(slip));
        },
        counted: |_| true,
        bar: 8,
    },
    Kind {
        name: "is without a network for nine days and sends all at once",
        dishonest: false,
        day: |days, day| {
            let sent = day - day % 10 + 9;
            let event = days.honest(day);
            let taken = event.stamp.captured_at;
            event.header.accepted_at.0 =
                good().header.accepted_at.0 + sent * DAY_US + 600 * HOUR_US / 60 + day;
            event.stamp.captured_at = taken;
        },
        counted: |_| true,
        bar: 8,
    },
    Kind {
        name: "has a phone whose clock is hours wrong",
        dishonest: false,
        day: |days, day| {
            let off = if days.driver.is_multiple_of(2) { 3 } else { -3 };
            let event = days.honest(day);
            event.stamp.captured_at = event.stamp.captured_at.map(|at| Micros(at.0 + off * HOUR_US));
            let camera = event.stamp.camera.as_mut().unwrap();
            camera.taken_at = camera.taken_at.map(|at| Micros(at.0 + off * HOUR_US));
        },
        counted: |_| true,
        bar: 8,
    },
    Kind {
        name: "drives 900 km to the sea and back",
        dishonest: false,
        day: |days, day| {
            if day % 10 == 5 {
                days.tenths += 9_000;
            }
            days.honest(day);
        },
        counted: |_| true,
        bar: 8,
    },
    Kind {
        name: "sends each photo a second time",
        dishonest: false,
        day: |days, day| {
            let event = days.honest(day).clone();
            let holder = FirstHolder { upload_id: event.header.upload_id, user_id: event.header.user_id };
            let id = UploadId(Uuid::from_u128(1 + days.events.len() as u128));
            let mut again = event;
            again.header.upload_id = id;
            again.header.accepted_at.0 += 1_000_000;
            again.stamp.first_holder = Some(holder);
            days.events.push(again);
        },
        counted: |_| true,
        bar: 8,
    },
    Kind {
        name: "has the instrument cluster replaced, which begins at zero",
        dishonest: false,
        day: |days, day| {
            if day == 15 {
                days.tenths = 0;
            }
            days.honest(day);
        },
        counted: |event| event.header.accepted_at.0 < good().header.accepted_at.0 + 15 * DAY_US,
        bar: 8,
    },
    Kind {
        name: "sends a photo of a lower mileage",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| {
                let back = days.between(100, 30_000);
                let tenths = days.tenths - back;
                days.photo(day, tenths)
            })
        },
        counted: marked,
        bar: 1_000,
    },
    Kind {
        name: "sends a photo of a car that has driven 5,000 to 60,000 km more",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| days.stranger(day, 50_000, 600_000));
        },
        counted: marked,
        bar: 990,
    },
    Kind {
        name: "sends a photo of a car that has driven 2,200 to 4,000 km more, a day later",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| days.stranger(day, 22_000, 40_000));
        },
        counted: marked,
        bar: 990,
    },
    Kind {
        name: "sends a file that another account has sent",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| {
                let event = days.honest(day);
                event.stamp.first_holder =
                    Some(FirstHolder { upload_id: UploadId(Uuid::nil()), user_id: UserId(Uuid::nil()) });
                event
            })
        },
        counted: marked,
        bar: 1_000,
    },
    Kind {
        name: "sends the picture of another account in another file",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| {
                let before = days.between(-HOUR_US, 5 * DAY_US);
                let event = days.honest(day);
                same_pixels(event, before, true, true);
                event
            })
        },
        counted: marked,
        bar: 1_000,
    },
    Kind {
        name: "types miles where the photo shows no unit",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| {
                let event = days.honest(day);
                event.stamp.claimed_unit = Some(Unit::Miles);
                event
            })
        },
        counted: marked,
        bar: 1_000,
    },
    Kind {
        name: "sends what a camera took three weeks before",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| {
                let event = days.honest(day);
                event.stamp.captured_at = Some(Micros(event.header.accepted_at.0 - 21 * DAY_US));
                event
            })
        },
        counted: marked,
        bar: 1_000,
    },
    Kind {
        name: "edits the picture, 30 to 300 km more than was driven",
        dishonest: true,
        day: |days, day| third_day(days, day, edited),
        counted: marked,
        // Nothing of the picture but its number tells; the reader looks for no edit.
        bar: 0,
    },
    Kind {
        name: "makes every photo brighter with an editor",
        dishonest: false,
        day: |days, day| {
            days.honest(day).stamp.camera.as_mut().unwrap().edited_by = Some("Snapseed".to_owned());
        },
        counted: |_| true,
        bar: 8,
    },
    Kind {
        name: "edits the picture and leaves the editor's name in the file",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| {
                let event = edited(days, day);
                event.stamp.camera.as_mut().unwrap().edited_by = Some("Adobe Photoshop".to_owned());
                event
            })
        },
        counted: marked,
        bar: 1_000,
    },
    Kind {
        name: "photographs a screen that shows an edited picture, 30 to 300 km more than was driven",
        dishonest: true,
        day: |days, day| {
            third_day(days, day, |days, day| {
                let seen = days.between(0, 1_000) < SCREENS_SEEN;
                let event = edited(days, day);
                event.quality.as_mut().unwrap().grid = Some(if seen { 0.9 } else { 0.0 });
                event
            })
        },
        counted: marked,
        // Of those in which nothing is seen every second is unsure and goes to a person all the same.
        bar: 700,
    },
    Kind {
        name: "sends 40 photos in half an hour, each a kilometre more",
        dishonest: true,
        day: |days, day| {
            if day < 7 || day % 3 != 0 {
                days.honest(day);
                return;
            }
            let first = days.honest(day).header.accepted_at.0;
            for n in 1..=40 {
                days.tenths += 10;
                let tenths = days.tenths;
                let event = days.photo(day, tenths);
                let later = first + n * HOUR_US / 80 - event.header.accepted_at.0;
                moved(event, later);
                event.stamp.region = FRAUD.to_owned();
            }
        },
        counted: marked,
        // Fifteen of them are within the limit of an hour.
        bar: 1_000 - 1_000 * 15 / 40,
    },
    Kind {
        name: "edits the picture, 30 to 300 km more than was driven, after three files of another account",
        dishonest: true,
        day: |days, day| match day {
            9 | 12 | 15 => {
                days.honest(day).stamp.first_holder =
                    Some(FirstHolder { upload_id: UploadId(Uuid::nil()), user_id: UserId(Uuid::nil()) });
            }
            16.. if day % 3 == 1 => {
                days.tenths += days.between(300, 3_000);
                days.honest(day).stamp.region = FRAUD.to_owned();
            }
            _ => drop(days.honest(day)),
        },
        counted: marked,
        bar: 1_000,
    },
    Kind {
        name: "has five accounts on one phone, each with a car of its own",
        dishonest: true,
        day: |days, day| {
            // The accounts begin one after the other.
            let accounts = if day == 0 { 1 + i32::try_from(days.driver % 5).unwrap() } else { 5 };
            let event = days.honest(day);
            event.stamp.origin =
                Some(OriginFacts { accounts_of_device: Some(accounts), young_accounts_of_address: None });
            event.stamp.region = FRAUD.to_owned();
        },
        counted: marked,
        bar: 1_000,
    },
    Kind {
        name: "begins with thirty-nine colleagues on one day in one car park",
        dishonest: false,
        day: |days, day| {
            let accounts = if day == 0 { 1 + i32::try_from(days.driver % 40).unwrap() } else { 40 };
            let event = days.honest(day);
            event.stamp.account_created_at = good().header.accepted_at;
            let young = event.header.accepted_at.0 - event.stamp.account_created_at.0 < 7 * DAY_US;
            event.stamp.origin = young.then_some(OriginFacts {
                accounts_of_device: None,
                young_accounts_of_address: Some(accounts),
            });
        },
        counted: |_| true,
        bar: 8,
    },
];

/// Of a kind's photos that count, how many end how.
#[derive(Default)]
struct Rates {
    photos: usize,
    refused: usize,
    reviewed: usize,
    paid: usize,
}

impl Rates {
    fn of(kind: usize) -> Self {
        let Kind { day, counted, .. } = &KINDS[kind];
        let mut rates = Self::default();
        for driver in 1..=DRIVERS {
            let mut days = Days::of(kind, driver);
            for n in 0..DAYS {
                day(&mut days, n);
            }
            days.events.sort_by_key(|event| event.header.accepted_at);
            for (event, verdict, km) in judged_with_people(&days.events) {
                if counted(&event) {
                    rates.photos += 1;
                    rates.refused += usize::from(verdict == Verdict::Rejected);
                    rates.reviewed += usize::from(verdict == Verdict::Review);
                    rates.paid += usize::from(km > Decimal::ZERO);
                }
            }
        }
        rates
    }

    fn per_mille(&self, of: usize) -> usize {
        (1_000 * of).div_ceil(self.photos)
    }
}

/// The verdicts of the rules on a driver's photos. What they doubt of an honest photo a person approves as it is before the next one; what
/// is a fraud they turn down, which is not held against the account here: a picture need not show them what it is.
fn judged_with_people(events: &[OdometerRead]) -> Vec<(OdometerRead, Verdict, Decimal)> {
    let rules = Rules::current();
    let (mut vehicle, mut conduct): (Option<VehicleState>, Option<Conduct>) = (None, None);
    let mut verdicts = Vec::new();
    for event in events {
        let before = Before { vehicle: vehicle.as_ref(), conduct: conduct.as_ref() };
        let judgement = judge(event, before, &rules);
        let became = Became { event, verdict: judgement.verdict, reason: judgement.reason };
        conduct = Some(Conduct::after(conduct.as_ref(), &became));
        let km = judgement.distance_km.unwrap_or_default();
        verdicts.push((event.clone(), judgement.verdict, km));
        let mut next = judgement.next_state;
        if judgement.verdict == Verdict::Review && !marked(event) {
            let seen = event.reading.as_ref().unwrap().best.as_ref().map(|best| (best.value, best.unit));
            let review: Review = review::by_a_person(seen);
            next = judge(&OdometerRead { review: Some(review), ..event.clone() }, vehicle.as_ref(), &rules)
                .next_state;
        }
        vehicle = next.or(vehicle);
    }
    verdicts
}

fn share(per_mille: usize) -> String {
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

#[test]
fn of_many_days_frauds_are_caught_and_the_honest_are_not_refused_as_the_page_says() {
    let mut table = String::from(
        "| driver | photos | refused | to a person | paid for |\n| --- | --- | --- | --- | --- |\n",
    );
    let mut beyond = Vec::new();
    for (n, kind) in KINDS.iter().enumerate() {
        let rates = Rates::of(n);
        let [refused, reviewed, paid] =
            [rates.refused, rates.reviewed, rates.paid].map(|count| rates.per_mille(count));
        let name = if kind.dishonest { format!("**{}**", kind.name) } else { kind.name.to_owned() };
        let [shown_refused, shown_reviewed, shown_paid] = [refused, reviewed, paid].map(share);
        writeln!(table, "| {name} | {} | {shown_refused} | {shown_reviewed} | {shown_paid} |", rates.photos)
            .unwrap();
        let good = if kind.dishonest { 1_000 - paid >= kind.bar } else { refused <= kind.bar };
        if !good {
            beyond.push(format!(
                "{}: refused {refused}, paid {paid}, the bar is {} of 1,000",
                kind.name, kind.bar
            ));
        }
    }
    println!("{table}");
    assert!(beyond.is_empty(), "{}\n{table}", beyond.join("\n"));
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (start, end) = ("<!-- rates -->\n", "<!-- end of rates -->");
    let (before, rest) = page.split_once(start).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let expected = format!("{before}{start}{table}{end}{after}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, expected).unwrap();
        return;
    }
    assert!(page == expected, "docs/fraud-corpus.md is behind: run this test with UPDATE=1");
}
