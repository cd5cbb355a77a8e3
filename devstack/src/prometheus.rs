//! Prometheus's configuration: one scrape job, whose targets are files that can come at any time.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Short, because runs are short. `job` and `instance` come with each target. File discovery notices a new file by itself;
/// the interval is for file systems that do not notify.
const SETTINGS: &str = "global: {scrape_interval: 2s, scrape_timeout: 2s}\n\
    scrape_configs:\n\
    - job_name: roles\n\
    \x20 file_sd_configs:\n\
    \x20 - files: ['targets/*.json']\n\
    \x20   refresh_interval: 5s\n";

/// Writes the configuration into a folder; its targets go to `targets/` beside it.
pub(crate) fn configure(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder.join("targets"))?;
    fs::write(folder.join("prometheus.yml"), SETTINGS)
}

/// Adds a target, or moves it to another address.
pub(crate) fn add(folder: &Path, job: &str, instance: &str, address: SocketAddr) -> io::Result<()> {
    for name in [job, instance] {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if name.is_empty() || !name.chars().all(plain) {
            let reason = format!("{name:?} is no name of a job or instance: letters, digits, -, _ and .");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
    }
    let target =
        format!(r#"[{{"targets":["{address}"],"labels":{{"job":"{job}","instance":"{instance}"}}}}]"#);
    let targets = folder.join("targets");
    // Renamed into place, so that no half of it is read. A + is in no name: two pairs never share a file.
    let draft = targets.join(format!("{job}+{instance}.part"));
    fs::write(&draft, target)?;
    fs::rename(draft, targets.join(format!("{job}+{instance}.json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_one_file_with_its_labels() {
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path()).unwrap();
        add(folder.path(), "fraud_check", "fraud_check-1", ([127, 0, 0, 1], 9100).into()).unwrap();
        let text = fs::read_to_string(folder.path().join("targets/fraud_check+fraud_check-1.json")).unwrap();
        assert_eq!(
            text,
            r#"[{"targets":["127.0.0.1:9100"],"labels":{"job":"fraud_check","instance":"fraud_check-1"}}]"#
        );
    }

    #[test]
    fn a_name_that_would_leave_the_folder_or_the_string_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path()).unwrap();
        for name in ["../x", "a\"b", "", "a b", "a+b"] {
            assert!(add(folder.path(), name, "one", ([127, 0, 0, 1], 1).into()).is_err(), "{name}");
        }
    }
}
