//! Framing, and what no input may do. How records of other versions are read stands in `oracle` and `versions`.

mod oracle;
mod versions;
mod writing;

use proptest::prelude::*;

use super::*;
use crate::events::{ActivityLogged, OdometerRead, registry_subjects};
use crate::ids::{EventId, Micros};
use uuid::Uuid;

fn event() -> ActivityLogged {
    ActivityLogged {
        event_id: EventId(Uuid::from_u128(5)),
        collection: "error_logs".into(),
        ordinal: 0,
        occurred_at: Micros(1_700_000_000_000_000),
        document: "{}".into(),
    }
}

#[test]
fn every_built_in_schema_parses_under_its_name() {
    for (_, name, text) in registry_subjects() {
        assert_eq!(RecordSchema::parse(text).unwrap().name(), name);
    }
}

#[test]
fn an_event_survives_framing_and_back() {
    let bytes = encode(9, &event()).unwrap();
    let (id, datum) = unframe(&bytes).unwrap();
    assert_eq!(id, 9);
    assert_eq!(decode::<ActivityLogged>(ActivityLogged::schema(), id, datum).unwrap(), event());
}

#[test]
fn a_wrong_magic_byte_a_short_record_and_left_over_bytes_are_distinguished() {
    assert!(
        matches!(unframe(&[1, 0, 0, 0, 9, 1]), Err(CodecError::Framing(text)) if text.contains("magic byte 1"))
    );
    assert!(matches!(unframe(&[0, 0]), Err(CodecError::Framing(text)) if text.contains("2 bytes")));
    let mut bytes = encode(9, &event()).unwrap();
    bytes.push(0);
    let left_over = decode::<ActivityLogged>(ActivityLogged::schema(), 9, &bytes[HEADER_BYTES..]);
    assert!(left_over.unwrap_err().to_string().contains("1 bytes left over"));
    let cut = decode::<ActivityLogged>(ActivityLogged::schema(), 9, &bytes[HEADER_BYTES..20]);
    assert!(matches!(cut, Err(CodecError::Datum { schema_id: 9, .. })));
}

fn read_as_any(schema: &str, datum: &[u8]) -> Result<serde::de::IgnoredAny, input::DatumError> {
    let schema = Schema::parse_str(schema).unwrap();
    de::read(&Plan::new(&schema, &schema).unwrap(), datum)
}

#[test]
fn a_length_that_the_datum_does_not_hold_is_an_error_before_anything_is_allocated() {
    // 2^62 in Avro's coding: of bytes, of items, and of a block that gives its bytes.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    for schema in [r#""bytes""#, r#""string""#, r#"{"type":"array","items":"long"}"#] {
        assert!(read_as_any(schema, &huge).is_err(), "{schema}");
        let schema = Schema::parse_str(schema).unwrap();
        let plan = Plan::new(&schema, &schema).unwrap();
        assert!(de::read::<serde_json::Value>(&plan, &huge).is_err());
    }
    let negative = [0x01, 0x7f];
    assert!(read_as_any(r#"{"type":"map","values":"int"}"#, &negative).is_err());
}

#[test]
fn an_array_of_items_without_bytes_ends() {
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0];
    let error = read_as_any(r#"{"type":"array","items":"null"}"#, &huge).unwrap_err();
    assert!(error.to_string().contains("items without bytes"), "{error}");
    let three = [6, 0];
    assert!(read_as_any(r#"{"type":"array","items":"null"}"#, &three).is_ok());
}

#[test]
fn a_record_inside_itself_is_read_to_a_depth_and_no_deeper() {
    let list = r#"{"type":"record","name":"List","fields":[{"name":"next","type":["null","List"]}]}"#;
    let nested = |depth: usize| [vec![2; depth], vec![0]].concat();
    assert!(read_as_any(list, &nested(50)).is_ok());
    for datum in [nested(64), nested(1_000_000)] {
        assert!(read_as_any(list, &datum).unwrap_err().to_string().contains("nest deeper"));
    }
}

#[test]
fn a_schema_of_another_record_is_refused_and_not_remembered() {
    let other = RecordSchema::parse(r#"{"type":"record","name":"Other","fields":[]}"#).unwrap();
    let error = decode::<ActivityLogged>(&other, 4, &[]).unwrap_err();
    assert!(error.to_string().contains("Other is not milestream.ActivityLogged"), "{error}");
}

#[test]
fn schemas_are_found_by_id_whichever_place_they_stand_in() {
    let cache = SchemaCache::default();
    let schema = |name: &str| {
        let text = format!(r#"{{"type":"record","name":"{name}","fields":[]}}"#);
        Arc::new(RecordSchema::parse(&text).unwrap())
    };
    let ids = [7, 7 + 1_024, 7 + 2_048, 8, 1_023, u32::MAX];
    for id in ids {
        assert!(cache.get(id).is_none());
        cache.put(id, &schema(&format!("R{id}")));
        cache.put(id, &schema("Again"));
    }
    for id in ids {
        assert_eq!(cache.get(id).unwrap().name(), format!("R{id}"));
    }
    (0..3_000).for_each(|id| cache.put(id, &schema("Filler")));
    assert!(cache.get(2_999).is_none(), "a full cache keeps what it has");
    assert_eq!(cache.get(u32::MAX).unwrap().name(), format!("R{}", u32::MAX));
}

fn reading() -> OdometerRead {
    let text = include_str!("../../examples/uploads.readings/normal-km.json");
    let example: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(example["event"].clone()).unwrap()
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode::<OdometerRead>(OdometerRead::schema(), 1, &bytes);
        let _ = decode::<crate::events::PayoutUpdated>(crate::events::PayoutUpdated::schema(), 1, &bytes);
    }

    #[test]
    fn a_changed_byte_never_makes_the_decoder_panic_and_a_cut_datum_never_decodes(
        at in any::<proptest::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = encode(1, &reading()).unwrap().split_off(HEADER_BYTES);
        let at = at.index(bytes.len());
        prop_assert!(decode::<OdometerRead>(OdometerRead::schema(), 1, &bytes[..at]).is_err());
        bytes[at] = byte;
        let _ = decode::<OdometerRead>(OdometerRead::schema(), 1, &bytes);
    }
}

/// `cargo test --release -p schemas -- --ignored --nocapture nanoseconds`
#[test]
#[ignore = "a measurement"]
fn nanoseconds_of_an_encoding_and_a_decoding() {
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::writer::datum::GenericDatumWriter;
    fn time(mut work: impl FnMut()) -> u128 {
        let runs = 100_000;
        (0..5)
            .map(|_| {
                let start = std::time::Instant::now();
                (0..runs).for_each(|_| work());
                start.elapsed().as_nanos() / runs
            })
            .min()
            .unwrap()
    }
    let event = reading();
    let bytes = encode(1, &event).unwrap();
    let (schema, datum) = (OdometerRead::schema(), &bytes[HEADER_BYTES..]);
    let old_encode = time(|| {
        let mut buffer = Vec::with_capacity(512);
        let writer = GenericDatumWriter::builder(schema.avro()).human_readable(true).build().unwrap();
        writer.write_ser(&mut buffer, &event).unwrap();
        std::hint::black_box(buffer);
    });
    let old_decode = time(|| {
        let reader = GenericDatumReader::builder(schema.avro()).human_readable(true).build().unwrap();
        std::hint::black_box(reader.read_deser::<OdometerRead>(&mut &*datum).unwrap());
    });
    let new_encode = time(|| drop(std::hint::black_box(encode(1, &event).unwrap())));
    let new_decode = time(|| drop(std::hint::black_box(decode::<OdometerRead>(schema, 1, datum).unwrap())));
    println!(
        "OdometerRead, {} bytes: encode {old_encode} -> {new_encode} ns, decode {old_decode} -> {new_decode} ns",
        datum.len()
    );
}
