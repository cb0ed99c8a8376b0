//! The limits that a gateway cannot pass here: a bare SMTP receiver that does nothing but append
//! every mail to one file and sync it for all that wait at that moment, and the disk's own sync.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use memchr::{memchr, memmem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::figures::Percentiles;
use super::server;
use crate::limits::LISTEN_BACKLOG;

/// A mail longer than this is not of our load.
const MAIL_BYTES_MAX: usize = 64 << 20;

type Waiting = (Vec<u8>, oneshot::Sender<()>);

/// Stops when dropped.
#[derive(Debug)]
pub(super) struct Bare {
    pub(super) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Bare {
    pub(super) fn start(folder: &Path) -> anyhow::Result<Bare> {
        // As the gateway does: a socket of the standard library lets few wait.
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(LISTEN_BACKLOG)?.into_std()?;
        let address = listener.local_addr()?;
        let file = appended(&folder.join("bare"))?;
        let (mails, waiting) = mpsc::channel();
        std::thread::Builder::new()
            .name("bare-disk".to_owned())
            .spawn(move || keep(file, &waiting))?;
        let _stop = server::start("bare", listener, move |listener| serve(listener, mails))?;
        Ok(Bare { address, _stop })
    }
}

fn appended(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| path.display().to_string())
}

/// Writes and syncs whatever waits, in groups. Ends when nobody can send any more, or the disk
/// fails; whoever waits then is not answered.
fn keep(mut file: File, waiting: &mpsc::Receiver<Waiting>) {
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        group.extend(waiting.try_iter());
        let mails: Vec<u8> = group.iter().flat_map(|(mail, _)| mail).copied().collect();
        if file
            .write_all(&mails)
            .and_then(|()| file.sync_data())
            .is_err()
        {
            return;
        }
        for (_, kept) in group {
            let _ = kept.send(());
        }
    }
}

async fn serve(listener: TcpListener, mails: mpsc::Sender<Waiting>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(session(stream, mails.clone()));
    }
}

/// Knows the commands that the load says, and believes them.
async fn session(mut stream: TcpStream, mails: mpsc::Sender<Waiting>) -> Option<()> {
    let _ = stream.set_nodelay(true);
    stream.write_all(b"220 bare\r\n").await.ok()?;
    let mut heard = Vec::with_capacity(8192);
    loop {
        let Some(end) = memchr(b'\n', &heard) else {
            read(&mut stream, &mut heard).await?;
            continue;
        };
        let line: Vec<u8> = heard.drain(..=end).collect();
        let reply: &[u8] = match line.get(..4)? {
            b"DATA" => {
                stream.write_all(b"354 go\r\n").await.ok()?;
                let mail = text(&mut stream, &mut heard).await?;
                let (kept, is_kept) = oneshot::channel();
                mails.send((mail, kept)).ok()?;
                is_kept.await.ok()?;
                b"250 kept\r\n"
            }
            b"QUIT" => {
                let _ = stream.write_all(b"221 bye\r\n").await;
                return None;
            }
            _ => b"250 ok\r\n",
        };
        stream.write_all(reply).await.ok()?;
    }
}

/// All up to the final dot.
async fn text(stream: &mut TcpStream, heard: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut from = 0_usize;
    loop {
        if let Some(at) = memmem::find(heard.get(from..)?, b"\r\n.\r\n") {
            return Some(heard.drain(..from + at + 5).collect());
        }
        from = heard.len().saturating_sub(4);
        read(stream, heard).await?;
    }
}

async fn read(stream: &mut TcpStream, heard: &mut Vec<u8>) -> Option<()> {
    let is_some = stream.read_buf(heard).await.ok()? > 0 && heard.len() <= MAIL_BYTES_MAX;
    is_some.then_some(())
}

/// What one append of 4 KiB and its sync take on the disk of that folder.
pub(super) fn sync_floor(folder: &Path, length: Duration) -> anyhow::Result<Percentiles> {
    let mut file = appended(&folder.join("sync"))?;
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < length || times.is_empty() {
        let at = Instant::now();
        file.write_all(&[b'x'; 4096])?;
        file.sync_data()?;
        times.push(at.elapsed());
    }
    Ok(Percentiles::of(times))
}
