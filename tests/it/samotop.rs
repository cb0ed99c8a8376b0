//! samotop-core (0.13, without its driver) as a session and as a receiving server.
//!
//! Its commands, actions and mail traits are its own; the loop around them is here, because its
//! own driver needs async-std and executes what was injected before STARTTLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use samotop_core::common::{S1Fut, S2Fut};
use samotop_core::io::ConnectionInfo;
use samotop_core::io::tls::MayBeTls;
use samotop_core::mail::{
    AddRecipientFailure, AddRecipientResult, DispatchResult, MailDispatch, MailGuard, Recipient,
    StartMailResult,
};
use samotop_core::smtp::command::{MailBody, SmtpCommand};
use samotop_core::smtp::{
    DriverControl, Esmtp, Interpret, Interpretter, ParseError, ParseResult, Parser, SessionService,
    SmtpContext, SmtpSession,
};
use samotop_parser::SmtpParserPeg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What samotop received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamotopMail {
    /// Empty for the null reverse-path.
    pub reverse_path: String,
    pub recipients: Vec<String>,
    pub data: Vec<u8>,
}

type Mails = Arc<Mutex<Vec<SamotopMail>>>;
type Accepts = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// One samotop session, fed with bytes.
pub struct SamotopSession {
    context: SmtpContext,
    interpretter: Interpretter,
    pub closed: bool,
}

impl SamotopSession {
    /// With samotop's own grammar for commands and data.
    pub fn new(mails: Mails, accepts: Accepts) -> SamotopSession {
        let data = Interpretter::default()
            .parse::<SmtpCommand>()
            .with(SmtpParserPeg)
            .and_apply(Esmtp)
            .parse::<MailBody<Vec<u8>>>()
            .with(SmtpParserPeg)
            .and_apply(Esmtp);
        SamotopSession::with(data, mails, accepts)
    }

    /// With its grammar for commands only: the one for data stops for ever at a byte that is
    /// not UTF-8, which a relayed mail may well hold.
    fn receiving(mails: Mails, accepts: Accepts) -> SamotopSession {
        let lines = Interpretter::default()
            .parse::<SmtpCommand>()
            .with(SmtpParserPeg)
            .and_apply(Esmtp)
            .parse::<MailBody<Vec<u8>>>()
            .with(BodyLines)
            .and_apply(Esmtp);
        SamotopSession::with(lines, mails, accepts)
    }

    fn with(interpretter: Interpretter, mails: Mails, accepts: Accepts) -> SamotopSession {
        let kit = Kit { mails, accepts };
        let mut context = SmtpContext::new(kit, ConnectionInfo::default());
        context.session.service_name = "samotop.example".to_owned();
        let extensions = &mut context.session.extensions;
        extensions.enable(&samotop_core::smtp::extension::EIGHTBITMIME);
        extensions.enable(&samotop_core::smtp::extension::PIPELINING);
        context.session.say_service_ready();
        SamotopSession {
            context,
            interpretter,
            closed: false,
        }
    }

    /// What samotop says to these bytes.
    pub async fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        self.context.session.input.extend_from_slice(bytes);
        loop {
            self.collect(&mut said);
            if self.closed || self.context.session.input.is_empty() {
                return said;
            }
            match self.interpretter.interpret(&mut self.context).await {
                Ok(None) => {}
                Ok(Some(consumed)) => drop(self.context.session.input.drain(..consumed)),
                Err(ParseError::Incomplete) => return said,
                // What its own driver does: drop a line and complain.
                Err(ParseError::Failed(_) | ParseError::Mismatch(_)) => {
                    let input = &mut self.context.session.input;
                    match input.iter().position(|byte| *byte == b'\n') {
                        Some(at) => drop(input.drain(..=at)),
                        None => return said,
                    }
                    self.context.session.say_invalid_syntax();
                }
            }
        }
    }

    fn collect(&mut self, said: &mut Vec<u8>) {
        while let Some(control) = self.context.session.pop_control() {
            match control {
                DriverControl::Response(bytes) => said.extend(bytes),
                DriverControl::Shutdown | DriverControl::StartTls => self.closed = true,
            }
        }
    }
}

/// Lines of data, whatever bytes they hold (RFC 5321 4.5.2).
#[derive(Debug)]
struct BodyLines;

impl Parser<MailBody<Vec<u8>>> for BodyLines {
    fn parse(&self, input: &[u8], state: &SmtpContext) -> ParseResult<MailBody<Vec<u8>>> {
        if state.session.mode != Some(SmtpSession::DATA_MODE) {
            return Err(ParseError::Mismatch("not in the data".to_owned()));
        }
        let end = input.windows(2).position(|two| two == b"\r\n");
        let length = end.ok_or(ParseError::Incomplete)? + 2;
        let line = &input[..length];
        if line == b".\r\n" {
            return Ok((length, MailBody::End));
        }
        let data = line.strip_prefix(b".").unwrap_or(line).to_vec();
        let ends_with_new_line = true;
        Ok((
            length,
            MailBody::Chunk {
                data,
                ends_with_new_line,
            },
        ))
    }
}

/// Keeps mails in memory; decides on recipients as it was told.
struct Kit {
    mails: Mails,
    accepts: Accepts,
}

impl std::fmt::Debug for Kit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kit")
    }
}

impl SessionService for Kit {
    fn prepare_session<'a, 'i, 's, 'f>(
        &'a self,
        _io: &'i mut Box<dyn MayBeTls>,
        _state: &'s mut SmtpContext,
    ) -> S1Fut<'f, ()>
    where
        'a: 'f,
        'i: 'f,
        's: 'f,
    {
        Box::pin(std::future::ready(()))
    }
}

impl MailGuard for Kit {
    fn start_mail<'a, 's, 'f>(&'a self, session: &'s mut SmtpSession) -> S2Fut<'f, StartMailResult>
    where
        'a: 'f,
        's: 'f,
    {
        session.transaction.id = "transaction".to_owned();
        Box::pin(std::future::ready(StartMailResult::Accepted))
    }

    fn add_recipient<'a, 's, 'f>(
        &'a self,
        _session: &'s mut SmtpSession,
        recipient: Recipient,
    ) -> S2Fut<'f, AddRecipientResult>
    where
        'a: 'f,
        's: 'f,
    {
        let result = if (self.accepts)(&recipient.address.address()) {
            AddRecipientResult::Inconclusive(recipient)
        } else {
            let failure = AddRecipientFailure::RejectedPermanently;
            AddRecipientResult::Failed(failure, "not ours".to_owned())
        };
        Box::pin(std::future::ready(result))
    }
}

impl MailDispatch for Kit {
    fn open_mail_body<'a, 's, 'f>(
        &'a self,
        session: &'s mut SmtpSession,
    ) -> S1Fut<'f, DispatchResult>
    where
        'a: 'f,
        's: 'f,
    {
        let transaction = &mut session.transaction;
        let mail = SamotopMail {
            reverse_path: transaction
                .mail
                .as_ref()
                .map_or_else(String::new, |mail| mail.sender().address()),
            recipients: transaction
                .rcpts
                .iter()
                .map(|rcpt| rcpt.address.address())
                .collect(),
            data: Vec::new(),
        };
        transaction.sink = Some(Box::pin(Body {
            mail: Some(mail),
            mails: Arc::clone(&self.mails),
        }));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Hands the mail over when it is closed.
struct Body {
    mail: Option<SamotopMail>,
    mails: Mails,
}

impl futures_io::AsyncWrite for Body {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(mail) = &mut self.mail {
            mail.data.extend_from_slice(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(mail) = self.mail.take() {
            self.mails.lock().unwrap().push(mail);
        }
        Poll::Ready(Ok(()))
    }
}

/// A receiving SMTP server that takes any recipient; plain text, no AUTH. Ends when dropped.
#[derive(Debug)]
pub struct SamotopServer {
    pub address: SocketAddr,
    mails: Mails,
    task: JoinHandle<()>,
}

impl SamotopServer {
    pub async fn start() -> SamotopServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mails: Mails = Arc::default();
        let received = Arc::clone(&mails);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(attend(stream, Arc::clone(&received)));
            }
        });
        SamotopServer {
            address,
            mails,
            task,
        }
    }

    /// What was received so far, in order.
    pub fn mails(&self) -> Vec<SamotopMail> {
        self.mails.lock().unwrap().clone()
    }
}

impl Drop for SamotopServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn attend(mut stream: TcpStream, mails: Mails) -> io::Result<()> {
    let mut session = SamotopSession::receiving(mails, Arc::new(|_| true));
    let mut said = session.feed(b"").await;
    let mut space = vec![0; 16 * 1024];
    loop {
        stream.write_all(&said).await?;
        if session.closed {
            return stream.shutdown().await;
        }
        let read = stream.read(&mut space).await?;
        if read == 0 {
            return Ok(());
        }
        said = session.feed(&space[..read]).await;
    }
}

#[tokio::test]
async fn the_server_receives_what_lettre_sends() {
    use lettre::AsyncTransport;
    let server = SamotopServer::start().await;
    let mailer: lettre::AsyncSmtpTransport<lettre::Tokio1Executor> =
        lettre::AsyncSmtpTransport::<lettre::Tokio1Executor>::builder_dangerous("127.0.0.1")
            .port(server.address.port())
            .build();
    let from = "a@client.example".parse().unwrap();
    let to = "team@signl4.example".parse().unwrap();
    let envelope = lettre::address::Envelope::new(Some(from), vec![to]).unwrap();
    let data = b"Subject: x\r\n\r\n.dot\r\n\xe4\r\nend\r\n";
    mailer.send_raw(&envelope, data).await.unwrap();
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].reverse_path, "a@client.example");
    assert_eq!(mails[0].recipients, ["team@signl4.example"]);
    assert!(mails[0].data.starts_with(data), "{:?}", mails[0]);
}
