//! Those who behave, while others vanish: each knows what it must see, and sees nothing else.

use std::sync::atomic::{AtomicBool, Ordering};

use sluicegate::demo::servers::APP;

use super::{Place, Scene};
use crate::harness::wire::{Wire, batch, bind, execute, kinds, parse, query, sync, terminate};

/// Which proxy each of them uses.
pub const BYSTANDERS: [Where; 9] = {
    use Where::{Main, Narrow, Session};
    [Main, Main, Main, Main, Main, Session, Session, Narrow, Narrow]
};
/// How many of them are at the proxy with the one connection.
pub const AT_NARROW: u64 = 2;
/// After so many transactions it leaves and comes again.
const STAY: u32 = 25;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Main,
    Session,
    Narrow,
}

/// Works until it is over; how many transactions that were.
pub fn run(scene: &Scene<'_>, me: usize, place: Where, over: &AtomicBool) -> u32 {
    let place = match place {
        Where::Main => scene.main,
        Where::Session => scene.session,
        Where::Narrow => scene.narrow,
    };
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        let mut bystander = Bystander::come(scene, place, me, done);
        for _ in 0..STAY {
            bystander.transaction();
        }
        done = bystander.done;
        bystander.leave();
    }
    done
}

struct Bystander {
    wire: Wire,
    me: usize,
    /// Transactions so far, which is what its counter in the database says.
    done: u32,
}

impl Bystander {
    fn come(scene: &Scene<'_>, place: Place, me: usize, done: u32) -> Self {
        let login = scene.login().with("TimeZone", &zone(me)).with("application_name", &format!("bystander {me}"));
        let mut wire = Wire::connect(place.address, &login).unwrap_or_else(|failed| panic!("bystander {me}: {failed}"));
        let prepared = wire.ask(&batch([parse("s1", &format!("SELECT $1 || ' of {me}'")), sync()]), 1);
        assert_eq!(kinds(&prepared), "1Z", "bystander {me}: {prepared:#?}");
        Self { wire, me, done }
    }

    fn transaction(&mut self) {
        let me = self.me;
        self.expect("BEGIN", "CZ");
        // What it has committed is there, once.
        let counted = self.row(&query(&format!("UPDATE counters SET n = n + 1 WHERE id = {me} RETURNING n")), "TDCZ");
        assert_eq!(counted, [(self.done + 1).to_string()], "bystander {me}");
        // Its own settings, and nothing of anybody else's.
        let seen = self.row(&query(LOOK), "TDCZ");
        let expected = [&zone(me), &format!("bystander {me}"), "4MB", "\"$user\", public", "off", "0", "0", "0", APP];
        assert_eq!(seen, expected, "bystander {me}");
        let bound = batch([bind("", "s1", &[Some(&self.done.to_string())]), execute("", 0), sync()]);
        assert_eq!(self.row(&bound, "2DCZ"), [format!("{} of {me}", self.done)]);
        self.expect("COMMIT", "CZ");
        self.done += 1;
        // And outside of a transaction.
        let sql = format!("SELECT '{me} ' || '{}'", self.done);
        assert_eq!(self.row(&query(&sql), "TDCZ"), [format!("{me} {}", self.done)]);
    }

    fn leave(mut self) {
        self.wire.send(&terminate());
        let last = self.wire.until_closed();
        assert!(last.is_empty(), "bystander {}: {last:#?}", self.me);
    }

    fn expect(&mut self, sql: &str, shape: &str) {
        let frames = self.wire.ask(&query(sql), 1);
        assert_eq!(kinds(&frames), shape, "bystander {}, {sql}: {frames:#?}", self.me);
    }

    /// The texts of the only row; all that comes is of this shape.
    fn row(&mut self, bytes: &[u8], shape: &str) -> Vec<String> {
        let frames = self.wire.ask(bytes, 1);
        assert_eq!(kinds(&frames), shape, "bystander {}: {frames:#?}", self.me);
        let row = frames.iter().find(|frame| frame.kind == b'D').unwrap();
        row.columns().into_iter().map(|text| String::from_utf8(text.unwrap_or_default().to_vec()).unwrap()).collect()
    }
}

/// What other clients of these connections leave, if they are let: settings, temporary tables, locks, channels; a role.
/// The sleep leaves others something of the processor.
const LOOK: &str = "SELECT current_setting('TimeZone'), current_setting('application_name'), \
    current_setting('work_mem'), current_setting('search_path'), current_setting('transaction_read_only'), \
    (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
    (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'), \
    (SELECT count(*) FROM pg_listening_channels()), current_user FROM pg_sleep(0.002)";

fn zone(me: usize) -> String {
    format!("Etc/GMT+{}", me + 1)
}
