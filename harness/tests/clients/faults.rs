//! The broker killed and frozen at random moments under load. `MILESTREAM_FAULTS=100` sets how often (6 otherwise),
//! `MILESTREAM_FAULT_SEED` repeats a run.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use devstack::{Part, Stack};

use crate::support::{LIMIT, Role, create_topic, kafka, own_kafka, producer, publish, until};

const TOPICS: usize = 4;
const ROLES: usize = 8;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |value| value.parse().unwrap())
}

/// A xorshift generator: a run is repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

async fn fault(stack: &mut Stack, random: &mut Random) -> String {
    let pause = Duration::from_millis(500 + random.below(11_500));
    if random.below(2) == 0 {
        stack.kill(Part::Kafka);
        tokio::time::sleep(pause / 4).await;
        stack.start_again(Part::Kafka).unwrap();
        return format!("killed, {:?} away", pause / 4);
    }
    let signal = |signal: &str, pid: u32| {
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    };
    let pid = stack.pid(Part::Kafka).unwrap();
    signal("-STOP", pid);
    tokio::time::sleep(pause).await;
    signal("-CONT", pid);
    format!("frozen for {pause:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_broker_every_record_reaches_every_role_and_none_has_to_be_restarted() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (faults, seed) = (setting("MILESTREAM_FAULTS", 6), setting("MILESTREAM_FAULT_SEED", clock));
    eprintln!("{faults} faults, MILESTREAM_FAULT_SEED={seed}");
    let mut stack = own_kafka();
    let direct = kafka(stack.kafka_brokers(), "role");
    let topics: Vec<String> = (0..TOPICS).map(|n| format!("load-{n}")).collect();
    topics.iter().for_each(|topic| create_topic(&direct, topic, 4));
    let roles: Vec<Role> =
        (0..ROLES).map(|n| Role::start(direct.clone(), &format!("role-{n}"), &topics[n % TOPICS])).collect();
    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = topics
        .iter()
        .map(|topic| {
            let ((outbound, reports), topic, done) = (producer(&direct), topic.clone(), done.clone());
            tokio::spawn(async move {
                let mut sent = 0;
                while !done.load(Ordering::SeqCst) {
                    publish(&outbound, &topic, &sent.to_string()).await;
                    sent += 1;
                }
                (sent, reports.rebuilt())
            })
        })
        .collect();
    let (mut random, started) = (Random(seed | 1), Instant::now());
    for n in 1..=faults {
        tokio::time::sleep(Duration::from_millis(random.below(6_000))).await;
        let what = fault(&mut stack, &mut random).await;
        eprintln!("{:>5.0} s: fault {n} of {faults}: {what}", started.elapsed().as_secs_f64());
    }
    done.store(true, Ordering::SeqCst);
    let mut sent = Vec::new();
    for load in load {
        let (count, rebuilt) = load.await.unwrap();
        eprintln!("producer: {count} records, rebuilt {rebuilt:?}");
        sent.push(count);
    }
    let ended = Instant::now();
    for (n, role) in roles.iter().enumerate() {
        let what = format!("role {n}: {} of {}", role.count(), sent[n % TOPICS]);
        until(&what, LIMIT, || role.count() == sent[n % TOPICS] || role.has_ended()).await;
        let rebuilt = role.reports.rebuilt();
        eprintln!(
            "role {n}: {} records {:?} after the last fault, rebuilt {rebuilt:?}",
            role.count(),
            ended.elapsed()
        );
        assert!(!role.has_ended(), "role {n} has ended");
    }
    roles.into_iter().for_each(|role| role.end().unwrap());
}
