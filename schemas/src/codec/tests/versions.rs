//! Every record type as the next release may write it, and as an earlier one may have: today's type reads it. That the registry
//! accepts these schemas is tested with a real one, in `runtime/tests`.

use super::super::*;
use crate::events::{EachEvent, each_event};
use crate::testing::versions;

#[derive(Default)]
struct Read {
    records: usize,
    fields: usize,
    symbols: usize,
    without: usize,
    closed: Vec<String>,
}

impl EachEvent for Read {
    fn event<E: Event>(&mut self) {
        self.records += 1;
        let versions = versions::<E>();
        for version in versions.next.iter().chain(&versions.earlier) {
            let writer = RecordSchema::parse(&version.schema).unwrap();
            let read: E = decode(&writer, 1, &version.datum)
                .unwrap_or_else(|error| panic!("{} with {}: {error}", E::NAME, version.change));
            let today: E = decode(E::schema(), 2, &version.today).unwrap();
            if version.change.starts_with("without") {
                self.without += 1;
                // What it reads is what it would write.
                let bytes = encode(3, &read).unwrap();
                let again: E = decode(E::schema(), 3, &bytes[HEADER_BYTES..]).unwrap();
                assert_eq!(format!("{again:?}"), format!("{read:?}"));
            } else {
                assert_eq!(format!("{read:?}"), format!("{today:?}"), "{} with {}", E::NAME, version.change);
                assert_eq!(encode(2, &read).unwrap()[HEADER_BYTES..], version.today);
            }
        }
        let symbols = versions.next.iter().filter(|version| version.change.starts_with("a symbol")).count();
        self.symbols += symbols;
        self.fields += versions.next.len() - symbols;
        for (name, schema) in versions.closed {
            self.closed.push(name);
            // The registry refuses it; were it written all the same, nothing would be guessed.
            let writer = RecordSchema::parse(&schema).unwrap();
            let datum = crate::testing::datum(writer.avro());
            let error = decode::<E>(&writer, 1, &datum).unwrap_err();
            assert!(error.to_string().contains("no symbol"), "{error}");
        }
    }
}

#[test]
fn every_record_of_the_next_release_and_of_an_earlier_one_is_read() {
    let mut read = Read::default();
    each_event(&mut read);
    read.closed.sort();
    read.closed.dedup();
    println!(
        "{} record types: {} with added fields, {} with a new symbol, {} without a field; closed enums: {}",
        read.records,
        read.fields,
        read.symbols,
        read.without,
        read.closed.join(", ")
    );
    assert_eq!(read.fields, read.records * (crate::testing::added_types("").len() + 1));
    // Money is counted by these two, so that no symbol may be taken for another.
    assert_eq!(read.closed, ["LimitType", "Unit"]);
}
