//! One arm of the benches `runtime` and `peers`, as a process of its own: `relay engine` or `relay raw`. `./dev bench` starts it.

use anyhow::{Result, bail};
use harness::relay::{Settings, engine, raw};

fn main() -> Result<()> {
    let settings = Settings::from_environment()?;
    match std::env::args().nth(1).as_deref() {
        // As the binary `milestream` runs a role.
        Some("engine") => {
            let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            threads.block_on(engine(&settings))
        }
        Some("raw") => raw(&settings),
        other => bail!("{other:?} is no arm: engine or raw"),
    }
}
