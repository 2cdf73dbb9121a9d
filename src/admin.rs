//! The HTTP side for operators: `/healthz`, `/readyz`, `/metrics`.
//!
//! Loopback only, nothing secret, nothing that acts. A `Host` header that is not ours is refused, so that a web page
//! can't read this through its visitor's browser (DNS rebinding). Every connection is bounded in number, time and
//! header size, and carries one request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::metrics::Metrics;

/// A scraper or two, a load balancer's checks and a curious operator.
const CONNECTIONS_MAX: usize = 64;
/// A request without a body fits in a packet.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// From accept to the last byte of the answer, which may be metrics over a slow line.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// hyper's least.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Without file descriptors accept fails at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two lines in the log about that.
const QUIET: Duration = Duration::from_secs(10);

/// Whether clients should be sent here. Shared by those who know and `/readyz`, which asks. Never the databases'
/// state: taking every proxy out of the balancer because their database is down helps nobody.
#[derive(Debug)]
pub struct Readiness {
    listening: AtomicBool,
    config_valid: AtomicBool,
    draining: AtomicBool,
}

impl Default for Readiness {
    /// At the start: a configuration was read, and nobody listens yet.
    fn default() -> Self {
        Self {
            listening: AtomicBool::new(false),
            config_valid: AtomicBool::new(true),
            draining: AtomicBool::new(false),
        }
    }
}

impl Readiness {
    /// All endpoints are bound.
    pub fn listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// How the last look at the configuration ended.
    pub fn config_valid(&self, is_valid: bool) {
        self.config_valid.store(is_valid, Ordering::Relaxed);
    }

    /// The proxy is going down.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// What stands in the way; empty: ready.
    pub fn obstacles(&self) -> Vec<&'static str> {
        let listening = self.listening.load(Ordering::Relaxed);
        let config_valid = self.config_valid.load(Ordering::Relaxed);
        let draining = self.draining.load(Ordering::Relaxed);
        [
            (!listening, "the endpoints are not bound yet"),
            (!config_valid, "the last reload found mistakes in the configuration; see the log"),
            (draining, "the proxy is going down"),
        ]
        .into_iter()
        .filter_map(|(is_so, words)| is_so.then_some(words))
        .collect()
    }
}

/// What the answers are made of.
#[derive(Debug)]
struct Admin {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    hostnames: Vec<String>,
    bound: IpAddr,
}

/// Answers on this listener until dropped. `hostnames`: what `Host` may name beside the bound address.
///
/// Cancel safe: answers under way are finished by tasks of their own.
pub async fn serve(
    listener: TcpListener,
    hostnames: Vec<String>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
) -> io::Result<()> {
    let bound = listener.local_addr()?.ip();
    let service = TowerToHyperService::new(router(Admin { metrics, readiness, hostnames, bound }));
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // When a failure to accept was last logged.
    let mut complained: Option<tokio::time::Instant> = None;
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    let ended = tokio::time::timeout(CONNECTION_TIME_MAX, answer(socket, service)).await;
                    debug!(%peer, ?ended, "admin connection ended");
                    drop(permit);
                });
            }
            Err(error) => {
                if complained.is_none_or(|last| last.elapsed() >= QUIET) {
                    complained = Some(tokio::time::Instant::now());
                    warn!(%error, "the admin listener can't accept; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(socket: TcpStream, service: TowerToHyperService<Router>) -> hyper::Result<()> {
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service)
        .await
}

fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(admin.clone(), check_host))
        .with_state(admin)
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let obstacles = admin.readiness.obstacles();
    if obstacles.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", obstacles.join("; ")))
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match admin.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            warn!(%error, "the metrics can't be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written; see the log\n").into_response()
        }
    }
}

async fn check_host(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    if admin.answers_to(request.headers()) {
        next.run(request).await
    } else {
        let words = "this name is not answered here: add it to `hostnames` in [admin]\n";
        (StatusCode::MISDIRECTED_REQUEST, words).into_response()
    }
}

impl Admin {
    /// There is exactly one `Host`, and it names us, on whatever port: a container's may be mapped.
    fn answers_to(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Some(host) = host.to_str().ok().and_then(host_name) else { return false };
        host.parse::<IpAddr>().is_ok_and(|address| address == self.bound)
            || self.hostnames.iter().any(|own| own.eq_ignore_ascii_case(host))
    }
}

/// `name`, `name:port`, `[address]` or `[address]:port` without port and brackets.
fn host_name(host: &str) -> Option<&str> {
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        return (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then_some(address);
    }
    match host.split_once(':') {
        Some((name, port)) => is_port(port).then_some(name),
        None => Some(host),
    }
}

/// Binds the admin listener.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::EndpointName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Running {
        address: SocketAddr,
        readiness: Arc<Readiness>,
    }

    async fn run() -> Running {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::default());
        let endpoint = EndpointName { endpoint: "orders".to_owned(), group: 0 };
        let metrics = Arc::new(Metrics::new([endpoint], [], 1).unwrap());
        tokio::spawn(serve(listener, vec!["localhost".to_owned()], metrics, readiness.clone()));
        Running { address, readiness }
    }

    impl Running {
        async fn raw(&self, request: &str) -> String {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            answer
        }

        async fn get(&self, path: &str) -> String {
            self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)).await
        }
    }

    #[tokio::test]
    async fn readiness_says_what_is_missing() {
        let running = run().await;
        assert!(running.get("/healthz").await.starts_with("HTTP/1.1 200"));
        let answer = running.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not bound yet"), "{answer}");
        running.readiness.listening();
        assert!(running.get("/readyz").await.starts_with("HTTP/1.1 200"));
        running.readiness.config_valid(false);
        running.readiness.draining();
        let answer = running.get("/readyz").await;
        assert!(answer.contains("going down") && answer.contains("configuration"), "{answer}");
        assert!(running.get("/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn metrics_are_text() {
        let answer = run().await.get("/metrics").await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("sluicegate_client_connections{endpoint=\"orders\"} 0\n"), "{answer}");
    }

    #[tokio::test]
    async fn only_known_hosts_paths_and_methods_are_answered() {
        let running = run().await;
        let port = running.address.port();
        for (host, status) in [
            ("Host: localhost\r\n".to_owned(), 200),
            (format!("Host: LocalHost:{port}\r\n"), 200),
            ("Host: 127.0.0.1:80\r\n".to_owned(), 200),
            ("Host: 127.0.0.2\r\n".to_owned(), 421),
            ("Host: evil.example\r\n".to_owned(), 421),
            ("Host: localhost.evil.example\r\n".to_owned(), 421),
            ("Host: localhost\r\nHost: evil.example\r\n".to_owned(), 421),
            ("Host: localhost:evil\r\n".to_owned(), 421),
            (String::new(), 421),
        ] {
            for path in ["/healthz", "/metrics", "/nothing"] {
                let answer = running.raw(&format!("GET {path} HTTP/1.1\r\n{host}\r\n")).await;
                let status = if status == 200 && path == "/nothing" { 404 } else { status };
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path} {host}: {answer}");
            }
        }
        let answer = running.raw("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        let huge = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert!(running.raw(&huge).await.starts_with("HTTP/1.1 431"));
    }

    #[test]
    fn hosts_are_taken_apart() {
        for (host, name) in [
            ("localhost", Some("localhost")),
            ("localhost:80", Some("localhost")),
            ("[::1]", Some("::1")),
            ("[::1]:80", Some("::1")),
            ("[::1]evil", None),
            ("[::1", None),
            ("::1", None),
            ("a:b", None),
        ] {
            assert_eq!(host_name(host), name, "{host}");
        }
    }
}
