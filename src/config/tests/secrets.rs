//! Secrets and files: where they come from, and that no message shows a secret.

use super::*;

#[test]
fn secrets_come_from_where_they_are_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("proxy.toml");
    for (name, bytes) in [
        ("plain", &b"s3cret"[..]),
        ("newline", b"s3cret\n"),
        ("crlf", b"s3cret\r\n"),
        ("two", b"s3cret\n\n"),
        ("empty", b"\n"),
        ("binary", b"\xff\xfe"),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    for (source, expected) in [
        ("{ value = 'hunter2' }", Ok("hunter2")),
        ("{ env = 'APP_PASSWORD' }", Ok("from-the-environment")),
        ("{ file = './plain' }", Ok("s3cret")),
        ("{ file = './newline' }", Ok("s3cret")),
        ("{ file = './crlf' }", Ok("s3cret")),
        ("{ file = './two' }", Ok("s3cret\n")),
        ("{ file = './empty' }", Err("the secret is empty")),
        ("{ file = './binary' }", Err("its file is not UTF-8 text")),
        ("{ file = './gone' }", Err("/./gone: No such file")),
        ("{ env = 'EMPTY' }", Err("the secret is empty")),
        ("{ command = ['echo', 's3cret'] }", Ok("s3cret")),
        ("{ command = ['echo', 's3cret'], refresh = '5m' }", Ok("s3cret")),
        ("{ command = ['echo'] }", Err("the secret is empty")),
        ("{ command = ['false'] }", Err("its command failed: exit status: 1")),
        ("{ command = [] }", Err("a program and its arguments")),
        ("{ command = 'echo' }", Err("a program and its arguments")),
        ("{ env = 'GONE' }", Err("variable GONE is not set")),
        ("{ value = '' }", Err("found an empty string")),
        ("{ value = \"a\\u0000b\" }", Err("holds a zero byte")),
        ("{ }", Err("found not exactly one source")),
        ("{ env = 'A', value = 'b' }", Err("found not exactly one source")),
    ] {
        let text = small_with("{ value = \"hunter2\" }", source);
        let found = Config::parse(&text, origin.to_str().unwrap(), &env);
        match (found, expected) {
            (Ok(config), Ok(expected)) => {
                assert_eq!(config.users[0].password.as_ref().unwrap().expose(), expected);
            }
            (Err(errors), Err(expected)) => {
                let text = errors.to_string();
                assert!(text.contains("20: user[0].password"), "{text}");
                assert!(text.contains(expected), "{text}");
            }
            (found, _) => panic!("{source}: {found:?}"),
        }
    }
}

#[test]
fn secrets_of_files_and_commands_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("proxy.toml");
    let file = folder.path().join("password");
    fs::write(&file, "old").unwrap();
    for (source, refresh) in [
        ("{ file = './password' }", None),
        ("{ command = ['cat', 'PATH'], refresh = '5m' }", Some(Duration::from_secs(300))),
        ("{ command = ['cat', 'PATH'] }", None),
    ] {
        fs::write(&file, "old").unwrap();
        let text = small_with("{ value = \"hunter2\" }", &source.replace("PATH", file.to_str().unwrap()));
        let config = Config::parse(&text, origin.to_str().unwrap(), &env).unwrap();
        let old = config.users[0].password.clone().unwrap();
        fs::write(&file, "new").unwrap();
        let new = old.read_again().unwrap().unwrap();
        assert_eq!((old.expose(), new.expose(), new.refresh()), ("old", "new", refresh));
        fs::write(&file, "").unwrap();
        assert!(new.read_again().unwrap().is_err());
    }
    assert!(good(SMALL).users[0].password.as_ref().unwrap().read_again().is_none());
}

#[test]
fn secrets_are_never_printed() {
    let config = good(SMALL);
    let shown = format!("{config:?} {config:#?} {}", config.target_groups[0].health.password);
    assert!(!shown.contains("hunter2") && !shown.contains("from-the-environment"));
    assert!(shown.contains("Secret(***)"));
    // Nor when they stand where they don't belong.
    for mistake in [
        "'hunter2'",
        "['hunter2']",
        "{ valeu = 'hunter2' }",
        "{ value = ['hunter2'] }",
        "{ env = 'hunter2' }",
        "{ file = 'hunter2' }",
        "{ value = 'hunter2', env = 'APP_PASSWORD' }",
        "{ command = ['false', 'hunter2'] }",
        "{ command = ['/hunter2'] }",
        "{ command = 'hunter2' }",
        "{ command = ['echo', 'hunter2'], refresh = 'often' }",
        "{ value = 'hunter2', refresh = '5m' }",
        "{ value = 'hunter2' }\npasswrd = 'hunter2'",
    ] {
        let text = small_with("{ value = \"hunter2\" }", mistake);
        let errors = parse(&text).expect_err(&text);
        let shown = format!("{errors} {errors:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let text = small_with("\"db1:5432\"", "'postgres://app:hunter2@db1:5432'");
    assert!(!messages(&text).concat().contains("hunter2"));
}

#[test]
fn files_are_found_beside_the_configuration_and_must_be_readable() {
    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("proxy.toml");
    let tls = "[tls]\ncertificate = 'proxy.pem'\nprivate_key = 'proxy.key'";
    let text = small_with("tls = \"off\"", "tls = \"required\"")
        .replace("#root", tls)
        .replace("#group", "ca_file = 'ca.pem'")
        .replace("MONITOR_PASSWORD", "PATH");
    fs::write(&origin, &text).unwrap();
    let errors = Config::load(&origin).expect_err(&text);
    let unreadable = |error: &ConfigError| matches!(error.problem, Problem::Unreadable { .. });
    assert!(errors.errors.iter().all(unreadable), "{errors}");
    let places: Vec<_> = errors.errors.iter().map(|e| (e.line, e.path.as_str())).collect();
    assert_eq!(places, [(11, "target_group[0].ca_file"), (23, "tls.certificate"), (24, "tls.private_key")]);
    for name in ["proxy.pem", "proxy.key", "ca.pem"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let config = Config::load(&origin).unwrap();
    assert_eq!(config.tls.unwrap().certificate, folder.path().join("proxy.pem"));
}

#[test]
fn a_file_that_is_not_there() {
    let errors = Config::load(Path::new("/nowhere/proxy.toml")).unwrap_err();
    let text = errors.to_string();
    assert!(text.starts_with("/nowhere/proxy.toml: can't read /nowhere/proxy.toml: No such file"), "{text}");
}
