//! The tables: the folder's files, embedded once for `milestream migrate` and for every test that wants them.

use sqlx::migrate::Migrator;

/// Every migration, in order.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let files = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let versions = names.filter(|name| name.ends_with(".sql"));
        let versions: BTreeSet<i64> =
            versions.map(|name| name.split_once('_').unwrap().0.parse().unwrap()).collect();
        let embedded: BTreeSet<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(embedded, versions);
    }
}
