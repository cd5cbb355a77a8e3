//! A TCP forwarder whose gate can be closed: the outage of a part that others are using.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use url::Url;

pub struct Forwarder {
    url: String,
    open: Arc<AtomicBool>,
}

impl Forwarder {
    pub fn to(target: &str) -> Self {
        let mut url = Url::parse(target).unwrap();
        let upstream = format!("{}:{}", url.host_str().unwrap(), url.port_or_known_default().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let open = Arc::new(AtomicBool::new(true));
        let gate = open.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if gate.load(Ordering::SeqCst) {
                    forward(client, &upstream, &gate);
                }
            }
        });
        Self { url: url.to_string(), open }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// New connections are dropped, and open ones end at their next byte.
    pub fn close(&mut self) {
        self.open.store(false, Ordering::SeqCst);
    }

    pub fn open(&mut self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

fn forward(client: TcpStream, upstream: &str, gate: &Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(upstream) else { return };
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    let (there, back) = (gate.clone(), gate.clone());
    std::thread::spawn(move || copy(client, server, &there));
    std::thread::spawn(move || copy(server_too, client_too, &back));
}

fn copy(mut from: TcpStream, mut to: TcpStream, gate: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    let end = |result: io::Result<usize>| result.unwrap_or(0);
    loop {
        let count = end(from.read(&mut buffer));
        if count == 0 || !gate.load(Ordering::SeqCst) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
