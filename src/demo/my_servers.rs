//! Throwaway MySQL and MariaDB servers for the demo, the tests and the benches, as [`servers`](super::servers) has them for
//! PostgreSQL.
//!
//! A server lives in a temporary folder, listens on a free loopback port and a unix socket, offers TLS, writes a binary log
//! with GTIDs, and is gone with its folder when its [`MyServer`] is dropped or this process dies in whatever way. It is as
//! small as it can be; nothing is durable, everything is blocking. Servers of one flavour share a prepared data folder (made
//! once under `$SLUICEGATE_SERVERS/templates`) but not their identity.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, geteuid, waitid};

use super::servers::{
    APP, APP_PASSWORD, Doing, Folder, MONITOR, MONITOR_PASSWORD, PATIENCE, POLL, PORT_ATTEMPTS, Result, ServersError,
    certificate, copy_folder, dismiss, end, free_port, run, servers_folder, tail, watch,
};

/// Who may do everything, from everywhere.
pub const ROOT: &str = "root";
/// Its password.
pub const ROOT_PASSWORD: &str = "root-secret";
/// Who replicas log in as.
pub const REPLICATION: &str = "replication";
/// Its password.
pub const REPLICATION_PASSWORD: &str = "replication-secret";

/// Bump when what a template holds changes.
const TEMPLATE_GENERATION: u32 = 1;

/// Which of the two relatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Flavour {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MySql, Self::MariaDb];

    /// What the keys in `servers.env` begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::MySql => "MYSQL",
            Self::MariaDb => "MARIADB",
        }
    }
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        })
    }
}

/// An installed server and how to run its programs: in a chroot or not, as its own account when we are root.
#[derive(Clone, Debug)]
pub struct MyInstallation {
    flavour: Flavour,
    facts: String,
    chroot: Option<PathBuf>,
    account: Option<(u32, u32)>,
    version: String,
}

impl MyInstallation {
    /// The one that `make provision` wrote down.
    pub fn find(flavour: Flavour) -> Result<Self> {
        let file = servers_folder().join("servers.env");
        let facts = fs::read_to_string(&file).unwrap_or_default();
        let mut found = Self::from_facts(flavour, facts, geteuid().is_root())?;
        let said = run(found.program("SERVER")?.args(["--no-defaults", "--version"]), "--version")?;
        // `mysqld  Ver 9.7.4-1 for Linux ...`
        let mut words = said.split_whitespace().skip_while(|word| *word != "Ver").skip(1);
        found.version = words.next().and_then(|version| version.split('-').next()).unwrap_or_default().to_owned();
        Ok(found)
    }

    fn from_facts(flavour: Flavour, facts: String, is_root: bool) -> Result<Self> {
        let mut found = Self { flavour, facts, chroot: None, account: None, version: String::new() };
        found.chroot = found.fact("CHROOT").ok().map(PathBuf::from);
        if is_root {
            let number = |name| found.fact(name)?.parse().map_err(|_| found.missing(name));
            found.account = Some((number("UID")?, number("GID")?));
        } else if let Some(chroot) = &found.chroot {
            return Err(ServersError::NeedsRoot { server: flavour.to_string(), chroot: chroot.display().to_string() });
        }
        let program = found.fact("SERVER")?;
        let root = found.chroot.as_deref().unwrap_or(Path::new("/"));
        if root.join(program.trim_start_matches('/')).exists() { Ok(found) } else { Err(found.missing("SERVER")) }
    }

    fn fact(&self, name: &str) -> Result<&str> {
        let key = format!("{}_{name}=", self.flavour.prefix());
        self.facts.lines().find_map(|line| line.strip_prefix(&key)).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> ServersError {
        let looked_in = servers_folder().join("servers.env").display().to_string();
        ServersError::NotProvisioned {
            server: self.flavour,
            key: format!("{}_{name}", self.flavour.prefix()),
            looked_in,
        }
    }

    /// Which of the two.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Without what the packager appends: `9.7.4`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The program that `servers.env` has under that name (`SERVER`, `CLIENT`, `ROUTER`), ready for arguments: run as its
    /// account, in its chroot, with an environment of its own.
    pub fn program(&self, name: &str) -> Result<Command> {
        let program = self.fact(name)?;
        let mut command = match &self.chroot {
            Some(chroot) => {
                let mut command = Command::new("chroot");
                command.arg(chroot).arg("setpriv");
                command
            }
            None if self.account.is_some() => Command::new("setpriv"),
            None => Command::new(program),
        };
        if let Some((user, group)) = self.account {
            let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
            command.args([&user, &group, "--clear-groups", "--", program]);
        }
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/tmp").env("LC_ALL", "C.UTF-8");
        command.current_dir("/").stdin(Stdio::null());
        Ok(command)
    }

    /// A path as the programs see it.
    pub fn inside(&self, path: &Path) -> String {
        let inside = match &self.chroot {
            None => path.to_owned(),
            Some(chroot) => Path::new("/").join(path.strip_prefix(chroot).unwrap_or(path)),
        };
        inside.display().to_string()
    }

    fn give(&self, path: &Path) -> Result<()> {
        let Some((user, group)) = self.account else { return Ok(()) };
        chown(path, Some(user), Some(group)).doing(format!("giving {} to {}", path.display(), self.flavour))
    }

    /// Writes a file that the programs own.
    pub fn write_file(&self, path: &Path, text: &str, mode: u32) -> Result<()> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.doing(format!("writing {}", path.display()))?;
        self.give(path)
    }

    /// A new temporary folder that the programs can reach and own.
    pub fn folder(&self) -> Result<Folder> {
        let folder = Folder::new(self.chroot.as_deref())?;
        self.give(folder.path())?;
        Ok(folder)
    }

    /// The prepared data folder: made on first use, then shared by all processes of this machine.
    fn template(&self) -> Result<PathBuf> {
        let templates = servers_folder().join("templates");
        let name = format!("{}-{}-{TEMPLATE_GENERATION}", self.flavour, self.version).to_lowercase();
        let template = templates.join(name);
        if template.exists() {
            return Ok(template);
        }
        fs::create_dir_all(&templates).doing(format!("making {}", templates.display()))?;
        let folder = self.new_data()?;
        let unfinished = templates.join(folder.path().file_name().unwrap_or_default());
        copy_folder(&folder.data(), &unfinished)?;
        // Renaming is what makes it visible, whole. If another process was faster its template is as good as ours.
        if fs::rename(&unfinished, &template).is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        Ok(template)
    }

    /// A data folder with our accounts in it, from nothing. It has no binary log, so that every server begins with none.
    fn new_data(&self) -> Result<Folder> {
        let folder = self.folder()?;
        let accounts = folder.path().join("accounts.sql");
        self.write_file(&accounts, &accounts_sql(self.flavour), 0o600)?;
        let accounts = self.inside(&accounts);
        let mut command = match self.flavour {
            Flavour::MySql => {
                let mut command = self.program("SERVER")?;
                command.args(["--no-defaults", "--initialize-insecure", "--log-error-verbosity=1"]);
                command.arg(format!("--init-file={accounts}"));
                command
            }
            Flavour::MariaDb => {
                let mut command = self.program("INSTALL_DB")?;
                command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                command.arg(format!("--extra-file={accounts}"));
                command
            }
        };
        command.arg(format!("--datadir={}", self.inside(&folder.data()))).args(small_log(self.flavour));
        run(&mut command, "making a data folder")?;
        // It names the server, and would name all of its copies.
        let _ = fs::remove_file(folder.data().join("auto.cnf"));
        Ok(folder)
    }
}

/// The accounts every server has.
fn accounts_sql(flavour: Flavour) -> String {
    let mut sql = String::new();
    if flavour == Flavour::MariaDb {
        // It makes several of root, without passwords. At that stage it looks at no accounts before it is told to.
        sql.push_str("DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';\nFLUSH PRIVILEGES;\n");
    }
    for (user, password) in
        [(ROOT, ROOT_PASSWORD), (APP, APP_PASSWORD), (MONITOR, MONITOR_PASSWORD), (REPLICATION, REPLICATION_PASSWORD)]
    {
        sql.push_str(&format!("CREATE USER {user}@'%' IDENTIFIED BY '{password}';\n"));
    }
    sql.push_str(&format!(
        "ALTER USER {ROOT}@localhost IDENTIFIED BY '{ROOT_PASSWORD}';\n\
         GRANT ALL ON *.* TO {ROOT}@'%' WITH GRANT OPTION;\n\
         CREATE DATABASE {APP};\n\
         GRANT ALL ON {APP}.* TO {APP}@'%';\n\
         GRANT REPLICATION SLAVE ON *.* TO {REPLICATION}@'%';\n\
         GRANT PROCESS, REPLICATION CLIENT ON *.* TO {MONITOR}@'%';\n",
    ));
    sql.push_str(&match flavour {
        Flavour::MySql => format!("GRANT SELECT ON performance_schema.* TO {MONITOR}@'%';\n"),
        Flavour::MariaDb => format!("GRANT SLAVE MONITOR ON *.* TO {MONITOR}@'%';\n"),
    });
    sql
}

/// The redo log takes 100 MB otherwise, in every copy. (With 8M MySQL stalls while it makes a data folder, with 16M a busy
/// machine comes near it.)
fn small_log(flavour: Flavour) -> [&'static str; 2] {
    match flavour {
        Flavour::MySql => ["--innodb-redo-log-capacity=32M", "--innodb-doublewrite=OFF"],
        Flavour::MariaDb => ["--innodb-log-file-size=8M", "--innodb-doublewrite=OFF"],
    }
}

/// A running (or stopped) throwaway server; dropping it kills the server and removes its folder.
#[derive(Debug)]
pub struct MyServer {
    installation: MyInstallation,
    folder: Folder,
    port: u16,
    arguments: Vec<String>,
    running: Option<Running>,
}

/// A server's process and the watcher that ends it should this process die.
#[derive(Debug)]
struct Running {
    process: Child,
    watcher: Child,
}

impl MyServer {
    /// Starts a server with these arguments beside those that all have (`--max-connections=20`; the last one of a name
    /// counts), and waits until it takes connections.
    pub fn start(installation: &MyInstallation, arguments: Vec<String>) -> Result<Self> {
        let (installation, folder) = (installation.clone(), installation.folder()?);
        copy_folder(&installation.template()?, &folder.data())?;
        for (name, text, mode) in certificate()? {
            installation.write_file(&folder.path().join(name), &text, mode)?;
        }
        let mut server = Self { installation, folder, port: 0, arguments, running: None };
        for attempt in 1.. {
            server.port = free_port()?;
            match server.resume() {
                Err(ServersError::Died { log, .. })
                    if log.contains("Address already in use") && attempt < PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        Ok(server)
    }

    /// The installation it runs from.
    pub fn installation(&self) -> &MyInstallation {
        &self.installation
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The server's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.process.id())
    }

    /// The folder it lives in, as seen from here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The certificate of the authority that signed the server's.
    pub fn ca_file(&self) -> PathBuf {
        self.folder().join("ca.crt")
    }

    /// Everything the server logged since it was started last.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder().join("server.log")).unwrap_or_default()).into_owned()
    }

    /// An error if the server ended although nobody stopped it: how, and what it said last.
    pub fn check(&self) -> Result<()> {
        let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())) else { return Ok(()) };
        // It stays to be waited for: who stops it does that.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let found = waitid(WaitId::Pid(pid), look).map_err(io::Error::from).doing("looking for the server")?;
        let Some(found) = found else { return Ok(()) };
        // As wait(2) has it.
        let raw = found.terminating_signal().unwrap_or(found.exit_status().unwrap_or_default() << 8);
        Err(ServersError::Died { status: ExitStatus::from_raw(raw), log: tail(&self.log()) })
    }

    /// Its own command line as [`ROOT`] over the unix socket, ready for arguments.
    pub fn client(&self) -> Result<Command> {
        let mut client = self.installation.program("CLIENT")?;
        client
            .args(["--no-defaults", "--batch", "--skip-column-names", "--user", ROOT])
            .env("MYSQL_PWD", ROOT_PASSWORD);
        client.arg(format!("--socket={}", self.installation.inside(&self.folder().join("socket"))));
        Ok(client)
    }

    /// Runs statements as [`ROOT`]; gives back the rows, with tabs between columns and without headings.
    pub fn run_sql(&self, sql: &str) -> Result<String> {
        Ok(run(self.client()?.args(["--execute", sql]), "the command line")?.trim_end().to_owned())
    }

    /// Ends the server with this signal (TERM: in order) and waits for it; what it holds stays for
    /// [`MyServer::resume`].
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let ended = end(&mut running.process, signal);
        dismiss(&mut running.watcher);
        if ended { Ok(()) } else { Err(self.too_slow("stopped")) }
    }

    /// Starts a stopped server again, on the same port and with the same data.
    pub fn resume(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let file = self.folder().join("server.log");
        let log = File::create(&file).doing(format!("making {}", file.display()))?;
        let errors = log.try_clone().doing("sharing the server's log")?;
        let mut command = self.installation.program("SERVER")?;
        command.args(self.all_arguments()).stdout(log).stderr(errors);
        // A group of its own: Ctrl-C at the terminal is for us, and the watcher tidies up after us.
        let mut process = command.process_group(0).spawn().doing(format!("starting {}", self.installation.flavour))?;
        let watcher = match watch(process.id(), self.folder(), "KILL") {
            Ok(watcher) => watcher,
            Err(error) => {
                end(&mut process, Signal::KILL);
                return Err(error);
            }
        };
        let mut running = Running { process, watcher };
        match self.wait_until_ready(&mut running.process) {
            Ok(()) => {
                self.running = Some(running);
                Ok(())
            }
            Err(error) => {
                end(&mut running.process, Signal::KILL);
                dismiss(&mut running.watcher);
                Err(error)
            }
        }
    }

    fn wait_until_ready(&self, process: &mut Child) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains("ready for connections") {
            if let Some(status) = process.try_wait().doing("waiting for the server")? {
                return Err(ServersError::Died { status, log: tail(&self.log()) });
            }
            if Instant::now() > deadline {
                return Err(self.too_slow("ready"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn too_slow(&self, state: &'static str) -> ServersError {
        ServersError::TooSlow { state, log: tail(&self.log()) }
    }

    fn all_arguments(&self) -> Vec<String> {
        let file = |name: &str| self.installation.inside(&self.folder().join(name));
        let mut arguments = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", file("data")),
            format!("--socket={}", file("socket")),
            format!("--pid-file={}", file("pid")),
            // A server that starts removes what looks like temporary tables there: also those of another one in the same place.
            format!("--tmpdir={}", file("")),
            // Debian's default is a folder that its packages of programs don't make.
            format!("--secure-file-priv={}", file("")),
            format!("--ssl-ca={}", file("ca.crt")),
            format!("--ssl-cert={}", file("server.crt")),
            format!("--ssl-key={}", file("server.key")),
            format!("--port={}", self.port),
            // Of all servers that may replicate from each other no two may have the same.
            format!("--server-id={}", self.port),
            format!("--report-port={}", self.port),
        ];
        let both = "--bind-address=127.0.0.1 --report-host=127.0.0.1 --skip-name-resolve --max-connections=400 --local-infile=ON \
                    --max-allowed-packet=64M --log-bin=bin --sync-binlog=0 --innodb-flush-log-at-trx-commit=0 \
                    --innodb-buffer-pool-size=16M --innodb-buffer-pool-dump-at-shutdown=OFF \
                    --innodb-buffer-pool-load-at-startup=OFF --table-open-cache=400 --performance-schema=OFF";
        let own = match self.installation.flavour {
            Flavour::MySql => "--mysqlx=OFF --gtid-mode=ON --enforce-gtid-consistency=ON --skip-replica-start",
            Flavour::MariaDb => "--log-slave-updates --gtid-strict-mode=ON --skip-slave-start",
        };
        arguments.extend([both, own].into_iter().flat_map(str::split_whitespace).map(str::to_owned));
        arguments.extend(small_log(self.installation.flavour).map(str::to_owned));
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }
}

impl Drop for MyServer {
    fn drop(&mut self) {
        // Nothing can be done about an error here: the folder goes anyway.
        let _ = self.stop(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_says_how_to_install_it() {
        for (facts, is_root, said) in [
            ("PG15_UID=1\n", true, "no MySQL here (MYSQL_UID); run `make provision`, which installs it"),
            (
                "MYSQL_UID=1\nMYSQL_GID=1\nMYSQL_SERVER=/mysqld\nMYSQL_CHROOT=/nowhere\n",
                true,
                "no MySQL here (MYSQL_SERVER); run `make provision`, which installs it",
            ),
            ("MYSQL_CHROOT=/nowhere\n", false, "the MySQL in /nowhere can only be started by root"),
        ] {
            let error = MyInstallation::from_facts(Flavour::MySql, facts.into(), is_root).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
