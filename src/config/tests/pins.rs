//! `pin_on`, `pin_max_percent`, `pin_idle_timeout`.

use super::*;
use crate::protocol::{PinReason, Pins};

const REASONS: &str = "setting, prepared_statement, temporary_object, session_lock, held_cursor, listen, sequence, opaque_code, \
                       server_process, unreadable, large_statement, user_variable";

#[test]
fn everything_pins_unless_it_is_said_otherwise() {
    let pool = &good(SMALL).target_groups[0].pool;
    assert_eq!((pool.pin_on.rejected, pool.pin_on.allowed), (Pins::NONE, Pins::NONE));
    assert_eq!((pool.pin_max_percent, pool.pin_idle_timeout), (50, None));
    let text = small_with(
        "#pool",
        "pin_max_percent = 100\npin_idle_timeout = '90s'\n\
         pin_on = { listen = 'reject', large_statement = 'reject', setting = 'allow', sequence = 'allow', held_cursor = 'pin' }",
    );
    let pool = &good(&text).target_groups[0].pool;
    let set = |reasons: [PinReason; 2]| reasons.into_iter().fold(Pins::NONE, |pins, reason| pins.and(Pins::of(reason)));
    assert_eq!(pool.pin_on.rejected, set([PinReason::Listen, PinReason::LargeStatement]));
    assert_eq!(pool.pin_on.allowed, set([PinReason::Setting, PinReason::Sequence]));
    assert_eq!((pool.pin_max_percent, pool.pin_idle_timeout), (100, Some(Duration::from_secs(90))));
}

#[test]
fn each_reason_can_be_named() {
    for reason in PinReason::ALL {
        for (word, is_there) in
            [("pin", true), ("reject", reason != PinReason::Sequence), ("allow", reason != PinReason::LargeStatement)]
        {
            let text = small_with("#pool", &format!("pin_on = {{ {reason} = '{word}' }}"));
            assert_eq!(parse(&text).is_ok(), is_there, "{reason} = {word}");
        }
    }
    // As a table of its own, too.
    let text = small_with("#health", "[target_group.pool.pin_on]\nlisten = 'reject'");
    assert_eq!(good(&text).target_groups[0].pool.pin_on.rejected, Pins::of(PinReason::Listen));
}

#[test]
fn mistakes_are_told_with_what_there_is() {
    const POOL: &str = "13: target_group[0].pool";
    check(&[
        (
            "#pool",
            "pin_on = { lisen = 'reject' }",
            &format!("{POOL}.pin_on.lisen: unknown key, did you mean `listen`? (known here: {REASONS})"),
        ),
        ("#pool", "pin_on = { temp = 'reject' }", &format!("{POOL}.pin_on.temp: unknown key (known here: {REASONS})")),
        (
            "#pool",
            "pin_on = { listen = 'refuse' }",
            &format!("{POOL}.pin_on.listen: found \"refuse\", allowed: \"pin\" or \"reject\" or \"allow\""),
        ),
        (
            "#pool",
            "pin_on = { sequence = 'reject' }",
            &format!("{POOL}.pin_on.sequence: found \"reject\", allowed: \"pin\" or \"allow\""),
        ),
        (
            "#pool",
            "pin_on = { large_statement = 'allow' }",
            &format!("{POOL}.pin_on.large_statement: found \"allow\", allowed: \"pin\" or \"reject\""),
        ),
        (
            "#pool",
            "pin_on = { listen = true }",
            &format!("{POOL}.pin_on.listen: found true, allowed: \"pin\" or \"reject\" or \"allow\""),
        ),
        (
            "#pool",
            "pin_on = 'reject'",
            &format!("{POOL}.pin_on: found \"reject\", allowed: a table, [target_group[0].pool.pin_on]"),
        ),
        ("#pool", "pin_max_percent = 0", &format!("{POOL}.pin_max_percent: found 0, allowed: a number from 1 to 100")),
        (
            "#pool",
            "pin_max_percent = 101",
            &format!("{POOL}.pin_max_percent: found 101, allowed: a number from 1 to 100"),
        ),
        (
            "#pool",
            "pin_idle_timeout = 5",
            &format!(
                "{POOL}.pin_idle_timeout: found 5, allowed: a duration such as \"250ms\", \"30s\", \"15m\" or \"1h\", at most \"8760h\""
            ),
        ),
    ]);
}
