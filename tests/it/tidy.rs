//! The shape of the code: who may use whom (docs/ARCHITECTURE.md), and what must not be seen in the machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module uses only those on rungs above its own: the number is the rung.
const RUNGS: [(&str, u32); 18] = [
    ("config", 1),
    ("metrics", 1),
    ("protocol", 1),
    ("sql", 2),
    ("postgres", 3),
    ("mysql", 3),
    ("net", 4),
    ("auth", 4),
    ("topology", 5),
    ("routing", 6),
    ("pool", 7),
    ("session", 8),
    ("listener", 9),
    ("commands", 9),
    ("admin", 9),
    ("run", 10),
    ("logging", 10),
    ("demo", 11),
];
/// Edges beside the ladder, each with its reason.
const BESIDE: [(&str, &str); 2] = [
    // Errors and pins are counted by kind and reason, in the words of protocol.
    ("metrics", "protocol"),
    // `pin_on` names the reasons to pin.
    ("config", "protocol"),
];
/// The machines: bytes in, bytes out.
const MACHINES: [&str; 4] = ["protocol", "sql", "postgres", "mysql"];
/// What a machine has no business with.
const FOREIGN: [&str; 8] =
    ["tokio", "async fn", "std::net", "std::sync::Mutex", "Instant::now", "SystemTime", "rand::", "std::fs"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file's module and its text, without comments and without what only its tests use.
fn modules() -> Vec<(PathBuf, String, String)> {
    let mut found = Vec::new();
    files(&source(), &mut found);
    found.retain(|path| !path.components().any(|part| part.as_os_str() == "tests") && !path.ends_with("tests.rs"));
    let module = |path: &Path| {
        let first = path.strip_prefix(source()).unwrap().components().next().unwrap();
        first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    let text = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    found.into_iter().map(|path| (path.clone(), module(&path), text(&path))).collect()
}

#[test]
fn nobody_imports_from_below_or_beside() {
    let rungs: BTreeMap<&str, u32> = RUNGS.into_iter().collect();
    let mut wrong = Vec::new();
    let modules = modules();
    assert!(modules.len() > 40);
    for (path, module, text) in &modules {
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let own =
            *rungs.get(module.as_str()).unwrap_or_else(|| panic!("{module} stands on no rung: {}", path.display()));
        // `use crate::a::b`, and paths in the text: `crate::a::b`. Groups (`crate::{a, b}`) would hide from this.
        assert!(!text.contains("crate::{"), "{}: one `use crate::` line for each module", path.display());
        for used in text.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(rung) = rungs.get(used.as_str()) else { continue };
            if used != *module && *rung >= own && !BESIDE.contains(&(module.as_str(), used.as_str())) {
                wrong.push(format!("{}: {module} (rung {own}) uses {used} (rung {rung})", path.display()));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_protocols_are_named_in_one_place_only() {
    for (path, module, text) in modules() {
        if !["lib", "run", "main", "demo", "postgres", "mysql"].contains(&module.as_str()) {
            for protocol in ["crate::postgres", "crate::mysql"] {
                assert!(!text.contains(protocol), "{} names {protocol}", path.display());
            }
        }
    }
}

#[test]
fn machines_open_no_socket_and_look_at_no_clock() {
    for (path, module, text) in modules() {
        if MACHINES.contains(&module.as_str()) {
            for foreign in FOREIGN {
                assert!(!text.contains(foreign), "{} has {foreign}", path.display());
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let mut found = Vec::new();
    files(&source(), &mut found);
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} begins without a word", path.display());
    }
}
