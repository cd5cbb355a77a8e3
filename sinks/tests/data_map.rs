//! The data map against the migrations: every table, column, type and enum under its own name, to the letter.

use std::collections::BTreeMap;

use sqlx::query_as;

use crate::support::Schema;

type Fields = BTreeMap<String, String>;

/// The type as the map writes it, from the catalogue.
const COLUMNS: &str = "
select c.table_name::text, c.column_name::text, case
    when c.udt_name = 'varchar' then format('VARCHAR(%s)', c.character_maximum_length)
    when c.udt_name = 'numeric' then format('DECIMAL(%s,%s)', c.numeric_precision, c.numeric_scale)
    when c.udt_name = 'timestamptz' then 'TIMESTAMP'
    when c.udt_name = 'int4' then 'INTEGER'
    when c.udt_name = 'bool' then 'BOOLEAN'
    when c.data_type = 'USER-DEFINED' then 'ENUM: ' || (
        select string_agg(e.enumlabel, ', ' order by e.enumlabel) from pg_enum e
        join pg_type t on t.oid = e.enumtypid join pg_namespace n on n.oid = t.typnamespace
        where t.typname = c.udt_name and n.nspname = c.udt_schema)
    else upper(c.udt_name) end
from information_schema.columns c where c.table_schema = current_schema()";

/// `UUID, Primary Key` is a `UUID`; labels of an enum in alphabetical order; `DECIMAL(10, 2)` without the blank.
fn canonical(kind: &str) -> String {
    if let Some(labels) = kind.strip_prefix("ENUM:") {
        let mut labels: Vec<&str> = labels.split(',').map(str::trim).collect();
        labels.sort_unstable();
        return format!("ENUM: {}", labels.join(", "));
    }
    if kind.starts_with("DECIMAL") || kind.starts_with("VARCHAR") {
        let end = kind.find(')').map_or(kind.len(), |end| end + 1);
        return kind[..end].replace(' ', "");
    }
    kind.split(',').next().unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn every_table_column_type_and_enum_of_the_data_map_exists_after_the_migrations() {
    let map: serde_json::Value = serde_json::from_str(include_str!("../../schemas/data-map.json")).unwrap();
    let wanted: BTreeMap<String, Fields> = serde_json::from_value(map["tables"].clone()).unwrap();
    let schema = Schema::new().await;
    let found: Vec<(String, String, String)> = query_as(COLUMNS).fetch_all(&schema.pool).await.unwrap();
    let found: BTreeMap<(String, String), String> =
        found.into_iter().map(|(table, column, kind)| ((table, column), kind)).collect();
    let mut short = Vec::new();
    for (table, columns) in &wanted {
        for (column, kind) in columns {
            match found.get(&(table.clone(), column.clone())) {
                Some(found) if *found == canonical(kind) => {}
                found => short.push(format!("{table}.{column}: want {}, is {found:?}", canonical(kind))),
            }
        }
    }
    assert!(short.is_empty(), "{short:#?}");
    assert_eq!(wanted.len(), 23);
    schema.drop().await;
}

#[test]
fn the_maps_ways_of_writing_a_type_are_read() {
    assert_eq!(canonical("UUID, Foreign Key"), "UUID");
    assert_eq!(canonical("DECIMAL(10, 2)"), "DECIMAL(10,2)");
    assert_eq!(canonical("ENUM: vechain, ethereum"), "ENUM: ethereum, vechain");
}
