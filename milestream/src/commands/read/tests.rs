use super::*;

fn candidate(value: u64, hundredths: i64) -> Candidate {
    Candidate { value: Decimal::from(value), unit: None, confidence: Decimal::new(hundredths, 2) }
}

fn outcome(file: &str, candidates: Vec<Candidate>, several: bool) -> Outcome {
    let reading = Reading {
        best: candidates.first().cloned(),
        evidence: None,
        candidates,
        several,
        lines: Vec::new(),
        box_metrics: None,
        surroundings: None,
        quality_score: Decimal::ONE,
        lighting: schemas::events::Lighting::Good,
        blur: false,
        glare: false,
        issues: Vec::new(),
        preprocessing: Vec::new(),
        cpu: None,
    };
    Outcome {
        file: file.into(),
        fault: None,
        graded: None,
        reading: Some(reading),
        previous: None,
        cpu: Duration::from_millis(700),
        wall: Duration::from_millis(800),
    }
}

#[test]
fn a_reading_is_accepted_only_alone_and_sure() {
    let against = |candidates, several| outcome("a.jpg", candidates, several).against(None);
    assert_eq!(against(vec![candidate(123_456, 80)], false), None);
    assert_eq!(against(vec![candidate(123_456, 79)], false), Some(Reason::LowConfidence));
    assert_eq!(against(vec![candidate(123_456, 99)], true), Some(Reason::SeveralReadings));
    assert_eq!(against(Vec::new(), false), Some(Reason::NoOdometer));
}

#[test]
fn the_previous_reading_chooses_and_the_reading_without_it_is_printed_as_well() {
    let mut photo = outcome("a.jpg", vec![candidate(43_983, 90), candidate(439_831, 40)], false);
    photo.previous = Some(Decimal::from(439_000));
    let json = show::json(&photo);
    assert_eq!((&json["reading"], &json["reading_alone"]), (&"439831".into(), &"43983".into()));
    assert_eq!((&json["auto_accept"], &json["reason"]), (&false.into(), &"low_confidence".into()));
    assert_eq!((&json["confidence"], &json["cpu_ms"]), (&"0.40".into(), &700.into()));
    assert!(show::text(&photo).starts_with("a.jpg: 439831 at confidence 0.40, not accepted\n"));
}

#[test]
fn the_table_counts_strictly_forgives_tenths_beside_and_uses_the_prior() {
    let folder = std::env::temp_dir().join(format!("milestream-read-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("truth.jsonl");
    let truth = r#"
        {"file":"a.jpg","class":"readable","style":"drum","value":12345,"tenth":6,"prior":12000}
        {"file":"b.jpg","class":"readable","style":"screen","value":777,"tenth":null,"prior":0}
        {"file":"c.jpg","class":"motion","style":"drum","value":9,"tenth":null,"prior":0}"#;
    fs::write(&path, truth).unwrap();
    let mut table = accuracy::Table::new(truth::read(&path).unwrap());
    fs::remove_dir_all(&folder).unwrap();
    table.add(&outcome("x/a.jpg", vec![candidate(123_456, 85), candidate(12_345, 10)], false)).unwrap();
    table.add(&outcome("b.jpg", vec![candidate(777, 99)], false)).unwrap();
    table.add(&outcome("c.jpg", vec![candidate(9, 99)], false)).unwrap();
    assert!(table.add(&outcome("d.jpg", Vec::new(), false)).is_err());
    let shown = table.shown("v", 2048);
    let row = |name: &str, nth: usize| {
        let line = shown.lines().filter(|line| line.starts_with(name)).nth(nth).unwrap();
        line.split_whitespace()
            .skip(1)
            .filter(|word| *word != "%")
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(row("drum ", 0), "1 0 0.0 1 100.0 1 100.0 1 100.0 1 100.0 1 100.0 0 0.0");
    assert_eq!(row("all ", 0), "2 1 50.0 2 100.0 2 100.0 2 100.0 2 100.0 1 50.0 0 0.0");
    assert_eq!(row("motion ", 0), "1 1 100.0 1 100.0 1 100.0 1 100.0 1 100.0 1 100.0 0 0.0");
    assert!(shown.contains("a.jpg: shows 12345 and 6 tenths, read 123456 (0.85), 12345 (0.10); ACCEPTED"));
    assert!(shown.contains("bar 0.80: accepts 2 readable photos, 100.0 %; 1 of them right, 50.0 %"));
    assert!(shown.contains("peak memory 2 MiB, reader v"));
}

#[test]
fn the_previous_reading_is_a_number_or_a_file_of_one_a_line() {
    assert!(matches!("12345.5".parse(), Ok(Previous::One(value)) if value == Decimal::new(123_455, 1)));
    let path = std::env::temp_dir().join(format!("milestream-previous-{}.jsonl", std::process::id()));
    fs::write(&path, "{\"file\":\"set/a.jpg\",\"previous\":120.5}\n{\"file\":\"b.jpg\",\"previous\":null}\n")
        .unwrap();
    let known = previous(Some(&Previous::Each(path.clone()))).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!((known("a.jpg"), known("b.jpg")), (Some(Decimal::new(1_205, 1)), None));
}

#[test]
fn a_drums_label_ends_with_its_tenths_and_a_displays_point_says_that_it_is_a_trip_meter() {
    let path = std::env::temp_dir().join(format!("milestream-labels-{}.jsonl", std::process::id()));
    let labels = r#"
        {"file":"drum.jpg","kind":"analog","label":"35376","width":1}
        {"file":"no-tenths.jpg","kind":"analog","label":"3144","seen":{"value":3144,"with_tenths":null}}
        {"file":"screen.jpg","kind":"digital","label":"159073"}
        {"file":"trip.jpg","kind":"digital","label":"49.3"}
        {"file":"zero.jpg","kind":"digital","label":"0"}"#;
    fs::write(&path, labels).unwrap();
    let truth = truth::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let row_of = |file: &str| (truth[file].class.as_str(), truth[file].value, truth[file].tenth);
    assert_eq!(row_of("drum.jpg"), ("readable", Some(3_537), Some(6)));
    assert_eq!(row_of("no-tenths.jpg"), ("readable", Some(3_144), None));
    assert_eq!(row_of("screen.jpg"), ("readable", Some(159_073), None));
    assert_eq!(
        (row_of("trip.jpg"), row_of("zero.jpg")),
        (("trip_meter", None, None), ("trip_meter", None, None))
    );
}

#[test]
fn a_sample_is_the_same_for_the_same_seed_and_another_for_another() {
    let files: Vec<PathBuf> = (0..100).map(|index| format!("set/{index}.jpg").into()).collect();
    let chosen = |seed| sample(files.clone(), 20, seed);
    assert_eq!((chosen(1).len(), chosen(1) == chosen(1), chosen(1) == chosen(2)), (20, true, false));
    assert_eq!(sample(files.clone(), 100, 1), files);
}
