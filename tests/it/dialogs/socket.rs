//! The real listener, a real socket, real TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mailbell::smtp::ReceivedMail;
use mailbell::smtp::listener::{Door, Listeners, serve};
use rustls::{ClientConnection, StreamOwned};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Side;
use super::world::{HOSTNAME, Pair, Sink, SinkState, World, no_certificates, teams};

/// Longer than any wait in a dialogue; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Socket {
    io: BufReader<Io>,
    pair: Option<Pair>,
    sink: Arc<Sink>,
    stop: CancellationToken,
    served: JoinHandle<()>,
    handle: Handle,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Gone,
}

impl Socket {
    pub fn new(world: &World, handle: &Handle) -> Socket {
        let sink = Sink::new();
        let stop = CancellationToken::new();
        let pair = world.certificate.then(Pair::new);
        let certificates = pair.as_ref().map_or_else(no_certificates, Pair::load);
        let door = Door::new(HOSTNAME, &world.smtp, &teams(), certificates, sink.clone());
        let listener = handle.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let mut listeners = Listeners::default();
        match world.implicit_tls {
            true => listeners.tls.push(listener),
            false => listeners.plain.push(listener),
        }
        let served = handle.spawn(serve(door, listeners, stop.clone(), Duration::from_secs(5)));
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Socket {
            io: BufReader::new(Io::Plain(stream)),
            pair,
            sink,
            stop,
            served,
            handle: handle.clone(),
        }
    }
}

impl Side for Socket {
    fn send(&mut self, bytes: &[u8]) {
        // The server may have closed in the middle of what is sent.
        let _ = self.io.get_mut().write_all(bytes);
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.io.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.strip_suffix("\r\n").unwrap().to_owned()),
        }
    }

    fn start_tls(&mut self) {
        assert!(
            self.io.buffer().is_empty(),
            "said before the handshake: {:?}",
            self.io.buffer()
        );
        let Io::Plain(stream) = std::mem::replace(self.io.get_mut(), Io::Gone) else {
            panic!("TLS twice");
        };
        let name = HOSTNAME.try_into().unwrap();
        let config = self.pair.as_ref().unwrap().client_config();
        let connection = ClientConnection::new(config, name).unwrap();
        *self.io.get_mut() = Io::Tls(Box::new(StreamOwned::new(connection, stream)));
    }

    fn set_sink(&mut self, state: SinkState) {
        self.sink.set(state);
    }

    fn wait(&mut self, what: &str) {
        match what {
            // The configured time passes while the next line is waited for.
            "timeout" => {}
            "shutdown" => self.stop.cancel(),
            other => panic!("wait for {other}"),
        }
    }

    fn is_closed(&mut self) -> bool {
        self.line().is_none()
    }

    fn finish(mut self: Box<Self>) -> (Vec<String>, Vec<ReceivedMail>) {
        self.io.get_mut().close();
        let mut rest = Vec::new();
        while let Some(line) = self.line() {
            rest.push(line);
        }
        self.stop.cancel();
        self.handle.block_on(self.served).unwrap();
        (rest, self.sink.mails())
    }
}

impl Io {
    fn close(&mut self) {
        let stream = match self {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                &mut stream.sock
            }
            Io::Gone => return,
        };
        let _ = stream.shutdown(Shutdown::Write);
    }
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Io::Plain(stream) => stream.read(buffer),
            Io::Tls(stream) => stream.read(buffer),
            Io::Gone => Ok(0),
        }
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Io::Plain(stream) => stream.write(bytes),
            Io::Tls(stream) => stream.write(bytes),
            Io::Gone => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Io::Plain(stream) => stream.flush(),
            Io::Tls(stream) => stream.flush(),
            Io::Gone => Ok(()),
        }
    }
}
