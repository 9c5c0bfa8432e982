//! What TLS adds to a message, beside what the cipher takes for the same bytes: section `tls`, with the feature `tls`.
//!
//! A front of this process decrypts for the sink. What the client takes more CPU time than without TLS is compared with a connection
//! of rustls in memory that seals what the client wrote and opens what it read, in records of full size: a process of its
//! own, without a socket. The least of all rounds counts.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener as TokioListener, TcpStream as TokioStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::measurement::cpu_ns;
use crate::sink::Sink;
use crate::{Figures, run, scaled, setting};

/// The payload of a record of full size.
const RECORD_BYTES: usize = 16 * 1024;

/// What the front reads at once.
const PUMP_BYTES: usize = 256 * 1024;

/// Records that are opened between two readings of the clock.
const RECORDS_AT_ONCE: usize = 256;

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenario/tls")).join(name)
}

/// What signs the certificate of the front.
pub(crate) fn ca_file() -> PathBuf {
    file("ca.pem")
}

fn server_config() -> Arc<ServerConfig> {
    let certificates = CertificateDer::pem_file_iter(file("server.pem")).expect("it is there");
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(file("server-key.pem")).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("it is built in").with_no_client_auth();
    Arc::new(builder.with_single_cert(certificates, key).expect("its key"))
}

fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(ca_file()).expect("it is there") {
        roots.add(authority.expect("a certificate")).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("it is built in");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Decrypts for a sink and encrypts what it answers, and counts the bytes of both.
struct Front {
    sink: Sink,
    /// Bytes that clients have written and read.
    carried: Arc<[AtomicU64; 2]>,
}

impl Front {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (sink, behind) = Sink::start_behind(&format!("pulsar+ssl://{address}")).expect("a free port");
        let carried = Arc::<[AtomicU64; 2]>::default();
        let counted = carried.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(listener, behind, counted)).expect("it listens until the process ends");
        });
        Self { sink, carried }
    }

    fn take_carried(&self) -> [u64; 2] {
        self.carried.each_ref().map(|bytes| bytes.swap(0, Ordering::SeqCst))
    }
}

async fn serve(listener: TcpListener, sink: String, carried: Arc<[AtomicU64; 2]>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TokioListener::from_std(listener)?;
    let acceptor = TlsAcceptor::from(server_config());
    loop {
        let (socket, _) = listener.accept().await?;
        let (acceptor, sink, carried) = (acceptor.clone(), sink.clone(), carried.clone());
        tokio::spawn(async move {
            let (client, sink) = (acceptor.accept(socket).await?, TokioStream::connect(sink).await?);
            sink.set_nodelay(true)?;
            let ((from_client, to_client), (from_sink, to_sink)) = (tokio::io::split(client), tokio::io::split(sink));
            let [written, read] = &*carried;
            tokio::try_join!(pump(from_client, to_sink, written), pump(from_sink, to_client, read))
        });
    }
}

/// Carries bytes on until there are no more.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; PUMP_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        carried.fetch_add(count as u64, Ordering::SeqCst);
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

/// Moves what one side has to say to the other.
macro_rules! tell {
    ($from:ident, $to:ident) => {{
        let mut bytes = Vec::new();
        while $from.wants_write() {
            $from.write_tls(&mut bytes).expect("memory");
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            $to.read_tls(&mut rest).expect("memory");
            $to.process_new_packets().expect("the peer is rustls too");
        }
    }};
}

/// The CPU time for sealing `sealed` and opening `opened` bytes: a process of its own.
pub(crate) fn cipher(sealed: u64, opened: u64) -> String {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(client_config(), name).expect("a connection");
    let mut server = ServerConnection::new(server_config()).expect("a connection");
    while client.is_handshaking() || server.is_handshaking() {
        tell!(client, server);
        tell!(server, client);
    }
    let plain = vec![b'x'; RECORD_BYTES];
    let start = cpu_ns();
    for _ in 0..sealed.div_ceil(RECORD_BYTES as u64) {
        client.writer().write_all(&plain).expect("memory");
        client.write_tls(&mut io::sink()).expect("memory");
    }
    let mut spent_ns = cpu_ns() - start;
    let mut read = vec![0; RECORD_BYTES];
    let mut left = opened.div_ceil(RECORD_BYTES as u64);
    while left > 0 {
        let mut records = Vec::new();
        for _ in 0..left.min(RECORDS_AT_ONCE as u64) {
            server.writer().write_all(&plain).expect("memory");
            server.write_tls(&mut records).expect("memory");
            left -= 1;
        }
        let start = cpu_ns();
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().expect("the peer is rustls too");
            while matches!(client.reader().read(&mut read), Ok(1..)) {}
        }
        spent_ns += cpu_ns() - start;
    }
    format!("cpu_ns={spent_ns}")
}

/// Prints what TLS adds.
pub(crate) fn compare(plain: &Sink) {
    if !cfg!(feature = "tls") {
        return println!("section tls needs the feature tls");
    }
    let front = Front::start();
    let (large, in_flight) = (64 * 1024, 5000);
    for (name, workload, numbers) in [
        ("produce, batches of 1000", "produce", [scaled(4_000_000), 100, 1000, in_flight, 1]),
        ("produce, unbatched", "produce", [scaled(1_000_000), 100, 1, in_flight, 1]),
        ("produce, 64 KiB", "produce", [scaled(40_000), large, 1, 200, 1]),
        ("consume, entries of 100", "consume", [scaled(4_000_000), 100, 100, 1000, 1]),
        ("consume, single entries", "consume", [scaled(1_000_000), 100, 0, 1000, 1]),
        ("consume, 64 KiB", "consume", [scaled(40_000), large, 0, 200, 1]),
    ] {
        let mut best = [f64::INFINITY; 3];
        for _ in 0..setting("ROUNDS", 3.0) as u32 {
            let bare = run("pulsar-native", workload, &plain.url, &numbers);
            front.take_carried();
            let secured = run("pulsar-native", workload, &front.sink.url, &numbers);
            // Counted with the warm-up, which the figures leave out.
            let measured = match workload {
                "produce" => 1.0 / (1.0 + 1.0 / crate::work::WARM_UP_DIVISOR as f64),
                _ => 1.0 - 1.0 / crate::work::WARM_UP_DIVISOR as f64,
            };
            let carried = front.take_carried().map(|bytes| (bytes as f64 * measured) as u64);
            let cipher = run("cipher", "both", "", &carried);
            for (best, figures) in best.iter_mut().zip([&bare, &secured, &cipher]) {
                *best = best.min(per_message(figures, &bare));
            }
        }
        let [bare, secured, cipher] = best;
        println!(
            "{name:<26} {bare:>7.3} us CPU/msg   over TLS {secured:>7.3}   added {:>6.3}, the cipher alone {cipher:>6.3}: {:>5.2} x",
            secured - bare,
            (secured - bare) / cipher
        );
    }
}

fn per_message(figures: &Figures, of: &Figures) -> f64 {
    figures["cpu_ns"] / of["messages"] / 1000.0
}
