//! Whether the memory of every role is flat: all of them as processes on the real parts, with photos for as many minutes as asked.
//!
//! Most photos are refused by `quality_check`, at every size that a phone takes, since decoding is what moves memory most; one in thirty is
//! read and one in ninety earns and is paid; one in thirty is sent twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use devstack::Stack;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use uuid::Uuid;

use crate::client::{Client, Photo, Posted};
use crate::deployment::Deployment;
use crate::local_chain::{start_every_role, wallet_of};
use crate::measure::{anonymous_mib, quantile, resident_mib};
use crate::photos::{another_picture, with_comment};
use crate::scenario::{Scenario, driver_id, vehicle_id};

/// Three uploads a second: a reading takes about a second of a core, so that one in thirty leaves the machine most of its time.
const PACE: Duration = Duration::from_millis(333);
/// Photos of a round, of which the first is read and the last is the one before once more.
const ROUND: usize = 30;
/// Rounds of a driver: three photos of a vehicle, of which the second and third earn.
const ROUNDS_OF_A_DRIVER: usize = 3;
/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Between two lines about the run.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Longest wait for the last verdict.
const DECIDED_WITHIN: Duration = Duration::from_secs(180);
/// Growth over the second half that is taken for noise, MiB. What moves is whole buffers: a photo's file (up to 1 MiB), a batch
/// of a consumer (1 MiB), an arena's top that glibc keeps per thread (128 KiB, of about 30 threads). Over half an hour of 5,400
/// uploads it is 0.8 KiB per upload: no event or document is smaller, so that none of them is kept.
const NOISE: f64 = 4.0;
/// What a role keeps shows between two photos: while one is in work its pixels come on top, 36 MiB of 12 megapixels. So of a
/// tenth of the time the quarter with the least counts.
const KEPT: f64 = 0.25;
/// Widths of the photos that are refused; their height is three quarters: 0.3, 1.9, 7 and 12 megapixels.
const WIDTHS: [u32; 4] = [640, 1_600, 3_060, 4_000];
/// Of all uploads this share may fail while everything else on the machine has its way: the gateway says 503 then, and a client
/// comes again.
const FAILED_UPLOADS: f64 = 0.01;

/// Runs the load for some minutes and prints a line per role; whether the memory of each is flat.
///
/// # Errors
/// When the parts or the roles do not start, a role dies, or more uploads fail than a loaded machine explains.
pub fn run(stack: &Stack, minutes: u32) -> Result<bool> {
    ensure!(
        minutes >= 4,
        "a run of {minutes} minutes is over before caches and pools are full: take 4 or more"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut deployment, _) = runtime.block_on(start_every_role(stack, "memory"))?;
    let load = Load::prepare(Path::new("examples/photos"), Client::new(&deployment.gateway_url())?)?;
    let file = stack.logs().join("memory.csv");
    println!("every sample: {}", file.display());
    let mut samples = Samples::new(&file)?;
    runtime.block_on(load.run(
        &mut deployment,
        Duration::from_secs(u64::from(minutes) * 60),
        &mut samples,
    ))?;
    ensure!(deployment.restarts == 0, "{} roles died and were started again", deployment.restarts);
    deployment.stop();
    Ok(samples.print())
}

/// What is posted.
struct Load {
    client: Client,
    /// Photos that are refused, of every width.
    refused: Vec<Vec<u8>>,
    /// Photos of a vehicle in the order in which they were taken.
    series: Vec<Vec<Vec<u8>>>,
}

/// Who posts in a round.
struct Drivers {
    /// Sends photos that earn.
    earning: String,
    /// Sends photos that are refused.
    refused: String,
}

impl Load {
    fn prepare(folder: &Path, client: Client) -> Result<Self> {
        let mut refused = Vec::new();
        for name in ["dark.jpg", "blurred.jpg"] {
            let bytes = std::fs::read(folder.join(name)).with_context(|| name.to_owned())?;
            let photo = image::load_from_memory(&bytes).with_context(|| name.to_owned())?;
            for width in WIDTHS {
                let photo = photo.resize_exact(width, width / 4 * 3, FilterType::Triangle);
                let mut jpeg = Vec::new();
                photo.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, 80))?;
                refused.push(jpeg);
            }
        }
        let series = Scenario::read(folder)?.series(folder, ROUNDS_OF_A_DRIVER)?;
        ensure!(!series.is_empty(), "the scenario has no vehicle with three verified JPEGs");
        Ok(Self { client, refused, series })
    }

    async fn run(&self, deployment: &mut Deployment, time: Duration, samples: &mut Samples) -> Result<()> {
        let begun = Instant::now();
        let (mut sampled, mut told) = (begun, begun);
        let (mut failed, mut last) = (0, None);
        let mut tokens = None;
        let mut n = 0;
        while begun.elapsed() < time {
            tokio::time::sleep_until((begun + PACE * u32::try_from(n)?).into()).await;
            if n % (ROUND * ROUNDS_OF_A_DRIVER) == 0 {
                tokens = Some(drivers(deployment, n / (ROUND * ROUNDS_OF_A_DRIVER))?);
            }
            let Some(drivers) = &tokens else { continue };
            let (token, photo) = self.photo(n, drivers)?;
            match self.post(token, &photo).await {
                Ok(Posted::Accepted { upload_id, .. }) => {
                    let verdict = if n % ROUND == 0 { "verified" } else { "rejected" };
                    last = Some((token.clone(), upload_id, verdict));
                }
                Ok(Posted::Refused { status, code, detail }) => {
                    failed += 1;
                    eprintln!("upload {n} was refused: {status} {code}: {detail}");
                }
                Err(error) => {
                    failed += 1;
                    eprintln!("upload {n}: {error:#}");
                }
            }
            n += 1;
            if sampled.elapsed() >= SAMPLE_EVERY {
                sampled += SAMPLE_EVERY;
                deployment.tend()?;
                samples.take(begun.elapsed(), deployment)?;
            }
            if told.elapsed() >= TELL_EVERY {
                told += TELL_EVERY;
                println!(
                    "{:>3} min, {n:>5} uploads, {failed} failed: {}",
                    told.duration_since(begun).as_secs() / 60,
                    samples.last()
                );
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "some thousands")]
        let share = f64::from(failed) / n as f64;
        ensure!(share <= FAILED_UPLOADS, "{failed} of {n} uploads failed");
        let (token, id, verdict) = last.context("no upload was accepted")?;
        self.decided(&token, id, verdict).await?;
        println!("{n} uploads, {failed} failed; the last is decided");
        Ok(())
    }

    /// Posts as an app does: once more where the connection has ended in the meantime, which a gateway does with one that is idle.
    async fn post(&self, token: &str, photo: &Photo) -> Result<Posted> {
        match self.client.post(token, photo).await {
            Ok(posted) => Ok(posted),
            Err(_) => self.client.post(token, photo).await,
        }
    }

    /// The n-th photo, and the token of who posts it.
    fn photo<'a>(&self, n: usize, drivers: &'a Drivers) -> Result<(&'a String, Photo)> {
        let (round, at) = (n / ROUND, n % ROUND);
        if at == 0 {
            let (driver, turn) = (round / ROUNDS_OF_A_DRIVER, round % ROUNDS_OF_A_DRIVER);
            let bytes = &self.series[driver % self.series.len()][turn];
            let captured = Utc::now() - chrono::Duration::days(9 - i64::try_from(turn)?);
            let photo = Photo {
                file_name: format!("{n}.jpg"),
                bytes: another_picture(bytes, n).context("a JPEG")?,
                vehicle_id: Some(vehicle_id(&format!("{}/1", name_of(driver)))),
                captured_at: Some(captured.to_rfc3339()),
                ..Photo::default()
            };
            return Ok((&drivers.earning, photo));
        }
        // The last of a round repeats the one before it, byte for byte.
        let which = if at == ROUND - 1 { n - 1 } else { n };
        let bytes = with_comment(&self.refused[which % self.refused.len()], &format!("memory {which}"));
        let photo =
            Photo { file_name: format!("{which}.jpg"), bytes: bytes.context("a JPEG")?, ..Photo::default() };
        Ok((&drivers.refused, photo))
    }

    async fn decided(&self, token: &str, id: Uuid, expected: &str) -> Result<()> {
        let until = Instant::now() + DECIDED_WITHIN;
        loop {
            let view = self.client.upload(token, id).await?;
            if let Some(verdict) = view.and_then(|view| view.verdict) {
                ensure!(verdict == expected, "the last photo was {verdict}, not {expected}");
                return Ok(());
            }
            ensure!(Instant::now() < until, "the last photo was not decided within {DECIDED_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

fn name_of(driver: usize) -> String {
    format!("memory-{driver}")
}

/// Two new drivers, of whom the one that earns has a wallet.
fn drivers(deployment: &Deployment, driver: usize) -> Result<Drivers> {
    let earning = driver_id(&name_of(driver));
    let (id, address) = (earning.to_string(), wallet_of(earning).to_string());
    deployment.command(&["wallet", "add", "--user", &id, "--address", &address])?;
    let refused = driver_id(&format!("{}-refused", name_of(driver)));
    Ok(Drivers { earning: deployment.token(earning)?, refused: deployment.token(refused)? })
}

/// A role's memory at one moment, MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    resident: f64,
    /// Heap and stacks: without the pages of the binary, which come as code is first run and go when others need the room.
    anonymous: f64,
}

/// The samples of every role, in order.
struct Samples {
    roles: BTreeMap<String, Vec<Sample>>,
    file: File,
}

impl Samples {
    fn new(file: &Path) -> Result<Self> {
        let mut file = File::create(file).context("make the file of samples")?;
        writeln!(file, "seconds,role,resident_mib,anonymous_mib")?;
        Ok(Self { roles: BTreeMap::new(), file })
    }

    fn take(&mut self, at: Duration, deployment: &Deployment) -> Result<()> {
        for (role, _, pid) in deployment.roles() {
            let memory = pid.and_then(|pid| Some((resident_mib(pid)?, anonymous_mib(pid)?)));
            let (resident, anonymous) = memory.with_context(|| format!("{role} has ended"))?;
            writeln!(self.file, "{},{role},{resident:.2},{anonymous:.2}", at.as_secs())?;
            self.roles.entry(role).or_default().push(Sample { resident, anonymous });
        }
        Ok(())
    }

    /// The newest of every role in one line.
    fn last(&self) -> String {
        let newest = self.roles.iter().filter_map(|(role, samples)| Some((role, samples.last()?)));
        newest.map(|(role, sample)| format!("{role} {:.0}", sample.resident)).collect::<Vec<_>>().join(", ")
    }

    /// Prints a line per role; whether none grew over the second half.
    fn print(&self) -> bool {
        println!(
            "resident memory, MiB, medians of a tenth of the time; growth over the second half is noise up to {NOISE:.1}"
        );
        println!(
            "  {:<22} {:>8} {:>8} {:>8} {:>8} {:>9} {:>12}",
            "role", "warm", "middle", "end", "most", "growth", "of that heap"
        );
        let mut all_flat = !self.roles.is_empty();
        for (role, samples) in &self.roles {
            let resident: Vec<f64> = samples.iter().map(|sample| sample.resident).collect();
            let anonymous: Vec<f64> = samples.iter().map(|sample| sample.anonymous).collect();
            let [warm, middle, end] = phases(&resident);
            let [_, heap_before, heap] = phases(&anonymous);
            let flat = end - middle <= NOISE;
            all_flat &= flat;
            println!(
                "  {role:<22} {warm:>8.1} {middle:>8.1} {end:>8.1} {:>8.1} {:>+9.1} {:>+12.1}{}",
                resident.iter().copied().fold(f64::NAN, f64::max),
                end - middle,
                heap - heap_before,
                if flat { "" } else { "  GROWS" }
            );
        }
        all_flat
    }
}

/// What is kept in the second, the sixth and the last tenth: after warm-up, from the middle on, at the end.
fn phases(values: &[f64]) -> [f64; 3] {
    [1, 5, 9].map(|tenth| {
        let mut part = values[values.len() * tenth / 10..values.len() * (tenth + 1) / 10].to_vec();
        part.sort_by(f64::total_cmp);
        quantile(&part, KEPT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_in_work_are_not_taken_for_growth() {
        let mut values: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(phases(&values), [12.0, 52.0, 92.0]);
        values[95..].fill(1_000.0);
        assert_eq!(phases(&values)[2], 92.0);
    }

    #[test]
    fn a_role_that_grows_by_more_than_noise_over_the_second_half_is_named_and_one_that_warms_up_before_is_not()
     {
        let folder = tempfile::tempdir().unwrap();
        let mut samples = Samples::new(&folder.path().join("memory.csv")).unwrap();
        let grown = |from: f64, per: f64| {
            let at = move |n: u32| from + per * f64::from(n);
            (0..100).map(|n| Sample { resident: at(n), anonymous: at(n) }).collect::<Vec<_>>()
        };
        samples.roles.insert("flat".into(), grown(70.0, 0.05));
        assert!(samples.print());
        let mut warms = grown(50.0, 1.0);
        warms[50..].fill(Sample { resident: 100.0, anonymous: 100.0 });
        samples.roles.insert("warms".into(), warms);
        assert!(samples.print());
        samples.roles.insert("grows".into(), grown(70.0, 0.2));
        assert!(!samples.print());
    }
}
