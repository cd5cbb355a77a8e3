//! Compiled contracts, as `contracts/compile.mjs` writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::DeployError;
use crate::id::Address;

/// Files that the compiler's run needs beside each other.
const SOURCES: [&str; 4] = ["package.json", "package-lock.json", "compile.mjs", "LaterRewardsPool.sol"];

#[derive(Debug, Deserialize)]
struct File {
    contracts: BTreeMap<String, Artifact>,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    /// Hex digits; places for library addresses hold text that is no hex.
    bytecode: String,
    /// Library -> byte offsets of its address.
    links: BTreeMap<String, Vec<usize>>,
}

/// Compiled contracts by name.
#[derive(Debug)]
pub struct Artifacts(BTreeMap<String, Artifact>);

impl Artifacts {
    /// Reads a file of `compile.mjs`.
    ///
    /// # Errors
    /// [`DeployError::Artifacts`].
    pub fn read(path: &Path) -> Result<Self, DeployError> {
        let failed = |reason: String| DeployError::Artifacts(format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let file: File = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
        Ok(Self(file.contracts))
    }

    /// Installs the pinned packages below `work` with npm and compiles the contracts there, unless both are up to date. Reads
    /// `sources` (this crate's folder `contracts`) and writes only below `work`. Takes about half a minute the first time; who wants
    /// the same folder at the same time waits for it.
    ///
    /// # Errors
    /// [`DeployError::Tool`] when node or npm is missing or fails; [`DeployError::Artifacts`].
    pub fn compile(sources: &Path, work: &Path) -> Result<Self, DeployError> {
        let output = work.join("contracts.json");
        let _alone = lock(work)?;
        install(sources, work)?;
        run(Command::new("node").arg("compile.mjs").arg(&output).current_dir(work))?;
        Self::read(&output)
    }

    /// Init code of a contract: its bytecode with the libraries' addresses put in, then the constructor's encoded arguments.
    pub(super) fn init_code(
        &self,
        name: &str,
        libraries: &BTreeMap<&str, Address>,
        arguments: &[u8],
    ) -> Result<Vec<u8>, DeployError> {
        let missing = |what: &str| DeployError::Artifacts(format!("{name}: {what}"));
        let artifact = self.0.get(name).ok_or_else(|| missing("not compiled"))?;
        let mut digits = artifact.bytecode.clone();
        for (library, places) in &artifact.links {
            let address = libraries.get(library.as_str()).ok_or_else(|| missing(library))?;
            for place in places {
                let range = 2 * place..2 * place + 40;
                if !digits.is_char_boundary(range.start) || digits.get(range.clone()).is_none() {
                    return Err(missing("a link lies beyond the code"));
                }
                digits.replace_range(range, &hex::encode(address.as_bytes()));
            }
        }
        let mut code = hex::decode(digits).map_err(|e| missing(&e.to_string()))?;
        code.extend_from_slice(arguments);
        Ok(code)
    }
}

/// Holds the folder until it is dropped: two npm runs would tear each other's packages apart.
fn lock(work: &Path) -> Result<std::fs::File, DeployError> {
    let path = work.join("lock");
    let held = std::fs::create_dir_all(work).and_then(|()| {
        let file = std::fs::File::create(&path)?;
        file.lock()?;
        Ok(file)
    });
    held.map_err(|e| DeployError::Artifacts(format!("{}: {e}", path.display())))
}

/// Copies the sources and runs `npm ci` when the lock file differs from the one that was installed last.
fn install(sources: &Path, work: &Path) -> Result<(), DeployError> {
    let failed = |path: &Path, e: std::io::Error| DeployError::Artifacts(format!("{}: {e}", path.display()));
    let installed: PathBuf = work.join("node_modules/.installed-lock.json");
    let lock = std::fs::read(sources.join("package-lock.json")).map_err(|e| failed(sources, e))?;
    for file in SOURCES {
        std::fs::copy(sources.join(file), work.join(file)).map_err(|e| failed(&sources.join(file), e))?;
    }
    if std::fs::read(&installed).is_ok_and(|before| before == lock) {
        return Ok(());
    }
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    run(Command::new("npm").args(arguments).current_dir(work))?;
    std::fs::write(&installed, lock).map_err(|e| failed(&installed, e))
}

fn run(command: &mut Command) -> Result<(), DeployError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().map_err(|e| DeployError::Tool { name: name.clone(), reason: e.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DeployError::Tool { name, reason: format!("{}: {reason}", output.status) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifacts(bytecode: &str, place: usize) -> Artifacts {
        let links = BTreeMap::from([("Lib".to_owned(), vec![place])]);
        Artifacts(BTreeMap::from([("Main".to_owned(), Artifact { bytecode: bytecode.to_owned(), links })]))
    }

    #[test]
    fn a_librarys_address_is_put_in_its_place_and_arguments_follow() {
        let code = format!("6001{}6002", "__$0123456789012345678901234567890123$__");
        let libraries = BTreeMap::from([("Lib", Address([0xab; 20]))]);
        let linked = artifacts(&code, 2).init_code("Main", &libraries, &[0xff]).unwrap();
        assert_eq!(hex::encode(linked), format!("6001{}6002ff", "ab".repeat(20)));
    }

    #[test]
    fn a_missing_library_or_contract_or_a_place_beyond_the_code_is_an_error() {
        let libraries = BTreeMap::from([("Lib", Address([0xab; 20]))]);
        assert!(artifacts("6001", 0).init_code("Main", &BTreeMap::new(), &[]).is_err());
        assert!(artifacts("6001", 0).init_code("Main", &libraries, &[]).is_err());
        assert!(artifacts("6001", 9).init_code("Main", &libraries, &[]).is_err());
        assert!(artifacts("6001", 0).init_code("Other", &libraries, &[]).is_err());
    }
}
