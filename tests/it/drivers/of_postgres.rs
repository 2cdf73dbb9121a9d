//! A value of each of PostgreSQL's types, by Rust's drivers.

use super::program::{Driver, Failed, Value};

/// A value as parameter, as the server's text, from text, and from a literal.
pub async fn of_a_type<D: Driver>(
    driver: &mut D,
    is_text: bool,
    kind: &str,
    text: &str,
    data: &str,
) -> Result<String, Failed> {
    let read = read(is_text, kind);
    let shown = match kind {
        "timestamptz" => "v AT TIME ZONE 'UTC'",
        "json" => "CAST(v AS jsonb)",
        _ => "v",
    };
    let as_text = format!("CAST(CAST($1 AS text) AS {kind})");
    let parameter = if is_text { as_text.clone() } else { format!("CAST($1 AS {kind})") };
    let value = if is_text { Value::Text(text.to_owned()) } else { Value::new(kind, text, data) };
    let sql = format!("SELECT {read}, CAST({shown} AS text) FROM (SELECT {parameter} AS v) AS x");
    let row = driver.rows(&sql, &[value]).await?.remove(0);
    let sql = format!("SELECT {read} FROM (SELECT {as_text} AS v) AS x");
    let from_text = driver.rows(&sql, &[Value::Text(text.to_owned())]).await?.remove(0);
    let quoted = text.replace('\'', "''");
    let sql = format!("SELECT {read} FROM (SELECT CAST('{quoted}' AS {kind}) AS v) AS x");
    let literal = driver.rows(&sql, &[]).await?.remove(0);
    Ok(format!("{kind} | {} | {} | {} | {}", row[0], row[1], from_text[0], literal[0]))
}

pub async fn null<D: Driver>(driver: &mut D, is_text: bool, kind: &str) -> Result<String, Failed> {
    let sql = format!("SELECT {} FROM (SELECT CAST($1 AS {kind}) AS v) AS x", read(is_text, kind));
    Ok(format!("{kind} {}", driver.rows(&sql, &[Value::Null]).await?[0][0]))
}

/// Types for which the drivers have nothing, and which go as text.
pub fn is_text(kind: &str) -> bool {
    ["numeric", "interval", "inet"].contains(&kind)
}

/// How a value of a type is asked for.
fn read(is_text: bool, kind: &str) -> &'static str {
    match kind {
        _ if !is_text => "v",
        // Its text has the length of the mask.
        "inet" => "host(v)",
        _ => "CAST(v AS text)",
    }
}
