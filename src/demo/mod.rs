//! The guided tour: throwaway databases, a proxy in front of them, and a walk through what it does.
//!
//! [`servers`] and [`my_servers`] start the databases; the tests' harness uses them too. `scene` puts the proxy in front of them, `tour` and
//! `my_tour` walk through it with `clients`, `report` prints. Every step checks what it shows. Nothing is left behind: what was started
//! ends when the scene is dropped, and a signal only ends the tour early.

mod clients;
mod config;
pub mod my_servers;
mod my_tour;
mod report;
mod scene;
pub mod servers;
mod tour;

use std::io;
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use report::Report;
use scene::Scene;

/// Why there was no tour, or not a good one.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The database could not be started.
    #[error(transparent)]
    Servers(#[from] servers::ServersError),
    /// A file, a port or a thread.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// The demo's own certificate.
    #[error(transparent)]
    Certificate(#[from] crate::net::tls::TlsError),
    /// The demo's own configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigErrors),
    /// The proxy's log.
    #[error(transparent)]
    Log(#[from] crate::logging::LogError),
    /// The proxy itself.
    #[error("the proxy did not start: {0}")]
    Run(#[from] crate::RunError),
    /// The proxy was neither ready nor down in time.
    #[error("the proxy was not ready in time; its log: {}", log.display())]
    NotReady {
        /// Where it logs.
        log: PathBuf,
    },
    /// SIGINT or SIGTERM before the end of the tour.
    #[error("interrupted")]
    Interrupted,
    /// Steps that did not come out as they should.
    #[error("{0} of the steps failed")]
    Failed(usize),
}

/// Gives the tour; `once`: and ends. Otherwise the scene stays up until SIGINT or SIGTERM. Call outside of any runtime.
pub fn run(once: bool) -> Result<(), DemoError> {
    let doing = |source| DemoError::Io { action: "starting a runtime".to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(doing)?;
    runtime.block_on(give(once))
}

async fn give(once: bool) -> Result<(), DemoError> {
    // First of all: from here on a signal ends nothing but the tour.
    let mut interrupts = Interrupts::new()?;
    let mut report = Report::new();
    let scene = Scene::set(&mut report)?;
    let walked = tokio::select! {
        () = tour::walk(&scene, &mut report) => true,
        () = interrupts.next() => false,
    };
    let failed = report.failed();
    if walked {
        report.table();
        if !once {
            scene.invite(&mut report);
            interrupts.next().await;
        }
    }
    report.leave();
    scene.strike(&mut report);
    match (walked, failed) {
        (false, _) => Err(DemoError::Interrupted),
        (true, 0) => Ok(()),
        (true, failed) => Err(DemoError::Failed(failed)),
    }
}

/// SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is gone).
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn new() -> Result<Self, DemoError> {
        let handle = |kind| {
            let doing = |source| DemoError::Io { action: "waiting for signals".to_owned(), source };
            signal(kind).map_err(doing)
        };
        Ok(Self([handle(SignalKind::interrupt())?, handle(SignalKind::terminate())?, handle(SignalKind::hangup())?]))
    }

    /// Cancel safe.
    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
