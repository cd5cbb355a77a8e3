//! A mail server that takes everything, and writes it into a file that the steps of a browser look at.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// Where mails arrive, and where they are written to. It ends with the test's process.
pub struct MailServer {
    pub address: SocketAddr,
    pub file: PathBuf,
}

impl MailServer {
    pub fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), file: folder.join("mails.txt") };
        std::fs::write(&server.file, "").unwrap();
        let file = server.file.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let file = file.clone();
                std::thread::spawn(move || take(stream.unwrap(), &file));
            }
        });
        server
    }
}

/// Takes the mails of one connection, as a server of RFC 5321 does.
fn take(mut stream: TcpStream, file: &Path) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut say = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes()).is_ok();
    say("220 test");
    while let Some(Ok(line)) = lines.next() {
        let answer = match line.as_str() {
            "DATA" => {
                say("354 go on");
                let mail: Vec<String> =
                    lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
                let mut mails = std::fs::OpenOptions::new().append(true).open(file).unwrap();
                mails.write_all((mail.join("\n") + "\n\n").as_bytes()).unwrap();
                "250 ok"
            }
            "QUIT" => return,
            _ => "250 ok",
        };
        if !say(answer) {
            return;
        }
    }
}
