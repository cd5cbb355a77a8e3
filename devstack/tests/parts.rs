//! The real parts, in stacks of this test's own: they are killed here.
#![allow(clippy::unwrap_used, reason = "clippy knows the test functions, not their helpers")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use devstack::{Part, Stack};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sqlx::{Connection as _, PgConnection};

/// The project's own folder, so that the parts are fetched once for all.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.local")
}

fn until<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if let Some(found) = look() {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("{what}: not within {seconds} s");
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn kill_9_of_the_owner_leaves_no_part_and_no_child_of_the_command() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    for part in Part::ALL {
        command.env_remove(part.variable());
    }
    let script =
        "setsid sleep 1000 & echo $! >\"$0\"; echo $$ >>\"$0\"; echo whole >>\"$0\"; exec sleep 1000";
    let told = tempfile::tempdir().unwrap();
    let told = told.path().join("pids");
    command.args(["--with", "thor", "sh", "-c", script]).arg(&told);
    let mut owner = command.current_dir(root().join("..")).stdin(Stdio::null()).spawn().unwrap();
    // Fetching every part, and building Thor on a busy machine.
    let tree = until("the command runs", 900, || {
        assert!(owner.try_wait().unwrap().is_none(), "devstack ended early");
        std::fs::read_to_string(&told).ok().filter(|text| text.ends_with("whole\n"))
    });
    let mark = format!("-{}-0", owner.id());
    let mut runs = std::fs::read_dir(root().join("run")).unwrap().flatten().map(|entry| entry.path());
    let run = runs.find(|path| path.to_string_lossy().ends_with(&mark)).unwrap();
    let files = std::fs::read_dir(&run).unwrap().flatten().map(|entry| entry.path());
    let mut pids: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "pid"))
        .map(|path| std::fs::read_to_string(path).unwrap().trim().to_owned())
        .collect();
    assert_eq!(pids.len(), Part::ALL.len());
    // PostgreSQL is several processes.
    let postgres = std::fs::read_to_string(run.join("postgres.pid")).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", postgres.trim());
    let children = std::fs::read_to_string(children).unwrap();
    assert!(children.split_whitespace().count() > 3, "{children}");
    pids.extend(children.split_whitespace().map(str::to_owned));
    pids.extend(tree.lines().filter(|line| *line != "whole").map(str::to_owned));
    assert!(pids.iter().all(|pid| is_running(pid)), "{pids:?}");

    owner.kill().unwrap();
    owner.wait().unwrap();

    for pid in &pids {
        until(&format!("process {pid} ends with its owner"), 10, || (!is_running(pid)).then_some(()));
    }
    // The next run removes the data that the killed one could not.
    let next = Stack::start_own(&root(), &[], &|_| {}).unwrap();
    assert!(!run.exists());
    next.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_parts_start_again_with_their_data() {
    let parts = [Part::Kafka, Part::Postgres];
    let mut stack =
        tokio::task::block_in_place(|| Stack::start_own(&root(), &parts, &|line| println!("{line}")))
            .unwrap();
    let brokers = stack.kafka_brokers().to_owned();
    let database = stack.database_url().to_owned();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let admin: AdminClient<_> = config.create().unwrap();
    let topic = NewTopic::new("kept", 1, TopicReplication::Fixed(1));
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].clone().unwrap();
    let producer: BaseProducer = config.create().unwrap();
    producer.send(BaseRecord::to("kept").key("key").payload("before the kill")).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
    let mut connection = PgConnection::connect(&database).await.unwrap();
    sqlx::raw_sql("create table kept (value text); insert into kept values ('before the kill')")
        .execute(&mut connection)
        .await
        .unwrap();

    tokio::task::block_in_place(|| {
        for part in parts {
            let pid = stack.pid(part).unwrap().to_string();
            assert!(stack.kill(part));
            assert!(!is_running(&pid));
            stack.start_again(part).unwrap();
            assert_ne!(stack.pid(part).unwrap().to_string(), pid);
        }
        assert!(!stack.kill(Part::Mongodb), "not a part of this stack");
    });

    assert_eq!((stack.kafka_brokers(), stack.database_url()), (brokers.as_str(), database.as_str()));
    let consumer: BaseConsumer = config.clone().set("group.id", "reader").create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset("kept", 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let payload = until("the record is read", 30, || {
        let record = consumer.poll(Duration::from_millis(100))?.ok()?;
        record.payload().map(<[u8]>::to_vec)
    });
    assert_eq!(payload, b"before the kill");
    let mut connection = PgConnection::connect(&database).await.unwrap();
    let value: String =
        sqlx::query_scalar("select value from kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(value, "before the kill");
    drop(connection);
    tokio::task::block_in_place(|| stack.stop());
}

#[test]
fn prometheus_reads_a_role_that_is_added_while_it_runs() {
    let role = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = role.local_addr().unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in role.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nphotos_total 42\n");
        }
    });
    let stack = Stack::start_own(&root(), &[Part::Prometheus], &|line| println!("{line}")).unwrap();
    stack.scrape("ingest", "ingest-1", address).unwrap();
    let prometheus: SocketAddr = stack.prometheus_url().trim_start_matches("http://").parse().unwrap();
    let response = until("the metric is there", 30, || {
        let mut stream = TcpStream::connect(prometheus).ok()?;
        stream.write_all(b"GET /api/v1/query?query=photos_total HTTP/1.0\r\n\r\n").ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        response.contains("\"42\"").then_some(response)
    });
    assert!(response.contains(r#""instance":"ingest-1","job":"ingest""#), "{response}");
    let run = stack.folder().to_path_buf();
    let logs = stack.logs().to_path_buf();
    stack.stop();
    assert!(!run.exists());
    assert!(logs.join("prometheus.log").is_file());
}

/// A block of this height (or `best`), once there is one, as the node writes it.
fn block(node: SocketAddr, revision: &str) -> Option<String> {
    let mut stream = TcpStream::connect(node).ok()?;
    stream.write_all(format!("GET /blocks/{revision} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    Some(response)
}

/// The id of a block of this height, once there is one.
fn block_id(node: SocketAddr, number: u32) -> Option<String> {
    // `null` where there is none.
    block(node, &number.to_string())?.split_once(r#""id":""#)?.1.split_once('"').map(|(id, _)| id.to_owned())
}

/// The time of the newest block, seconds since 1970.
fn best_time(node: SocketAddr) -> u64 {
    let best = block(node, "best").unwrap();
    let (_, rest) = best.split_once(r#""timestamp":"#).unwrap();
    rest.split_once(',').unwrap().0.parse().unwrap()
}

#[test]
fn a_killed_thor_node_goes_on_with_its_chain() {
    let mut stack = Stack::start_own(&root(), &[Part::Thor], &|line| println!("{line}")).unwrap();
    let url = stack.thor_url().to_owned();
    let node: SocketAddr = url.trim_start_matches("http://").parse().unwrap();
    // A block per second, without a transaction that asks for one.
    let before = until("the second block", 30, || block_id(node, 2));
    let pid = stack.pid(Part::Thor).unwrap().to_string();
    assert!(stack.kill(Part::Thor));
    assert!(!is_running(&pid));
    assert_eq!(block_id(node, 2), None, "nobody answers for a killed node");

    stack.start_again(Part::Thor).unwrap();

    assert_eq!(stack.thor_url(), url);
    assert_eq!(block_id(node, 2), Some(before));
    until("a block after the kill", 30, || block_id(node, 4));
    // A block's time is the clock's, so that times of payments are: it does not run ahead, as on-demand blocks do.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let time = best_time(node);
    assert!(time.abs_diff(now) <= 5, "the newest block is of {time}, and it is {now}");
    let pid = stack.pid(Part::Thor).unwrap().to_string();
    stack.stop();
    assert!(!is_running(&pid));
}
