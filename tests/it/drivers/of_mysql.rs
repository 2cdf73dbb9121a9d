//! A value of each of MySQL's types, by Rust's drivers: it goes through a table, since no cast makes most of them.

use super::program::{Driver, Failed, Value, date, hex, time};

/// A value as parameter, as the server's text, from text, and from a literal.
pub async fn of_a_type<D: Driver>(driver: &mut D, number: u32, kind: &str, text: &str) -> Result<String, Failed> {
    let base = base(number);
    let bare = bare(kind);
    let is_binary = ["BLOB", "VARBINARY"].contains(&bare);
    let from_text = if is_binary { "UNHEX(?)" } else { "?" };
    let replace = format!("REPLACE INTO kinds (id, `{kind}`) VALUES (?, ?), (?, {from_text})");
    let values = [Value::Int4(base), value(bare, text), Value::Int4(base + 1), Value::Text(text.to_owned())];
    driver.rows(&replace, &values).await?;
    let quoted = text.replace('\\', "\\\\").replace('\'', "''");
    let literal = if is_binary { format!("X'{text}'") } else { format!("'{quoted}'") };
    driver.command(&format!("REPLACE INTO kinds (id, `{kind}`) VALUES ({}, {literal})", base + 2)).await?;
    let as_text = if is_binary { format!("HEX(`{kind}`)") } else { format!("CAST(`{kind}` AS CHAR)") };
    let sql = format!("SELECT `{kind}`, {as_text} FROM kinds WHERE id BETWEEN ? AND ? ORDER BY id");
    let rows = driver.rows(&sql, &[Value::Int4(base), Value::Int4(base + 2)]).await?;
    let [first, second, third] = &rows[..] else { return Err(Failed(format!("{rows:?}"))) };
    let [shown, second, third] = [first, second, third].map(|row| shown(bare, &row[0]));
    Ok(format!("{kind} | {shown} | {} | {second} | {third}", first[1]))
}

pub async fn null<D: Driver>(driver: &mut D, number: u32, kind: &str) -> Result<String, Failed> {
    let id = Value::Int4(base(number));
    driver.rows(&format!("REPLACE INTO kinds (id, `{kind}`) VALUES (?, ?)"), &[id.clone(), Value::Null]).await?;
    let row = driver.rows(&format!("SELECT `{kind}` FROM kinds WHERE id = ?"), &[id]).await?.remove(0);
    Ok(format!("{kind} {}", shown(kind, &row[0])))
}

fn base(number: u32) -> i32 {
    i32::try_from(number).unwrap() * 100_000
}

/// A type without its length.
fn bare(kind: &str) -> &str {
    kind.split('(').next().unwrap_or_default()
}

fn value(kind: &str, text: &str) -> Value {
    match kind {
        "TINYINT" | "SMALLINT UNSIGNED" | "INT" | "YEAR" => Value::Int4(text.parse().unwrap()),
        "BIGINT" => Value::Int8(text.parse().unwrap()),
        "BIGINT UNSIGNED" => Value::UInt8(text.parse().unwrap()),
        "FLOAT" => Value::Float4(text.parse().unwrap()),
        "DOUBLE" => Value::Float8(text.parse().unwrap()),
        "BLOB" | "VARBINARY" => Value::new("bytea", &format!("\\x{text}"), ""),
        "DATE" => Value::Date(date(text)),
        "TIME" => Value::Time(time(text)),
        "DATETIME" | "TIMESTAMP" => Value::new("timestamp", text, ""),
        _ => Value::Text(text.to_owned()),
    }
}

/// The same for all drivers.
fn shown(kind: &str, value: &Value) -> String {
    match value {
        // sqlx takes MariaDB's for a BLOB, by its collation.
        Value::Bytes(json) if kind == "JSON" => Value::Json(serde_json::from_slice(json).unwrap()).to_string(),
        Value::Bytes(bytes) => hex(bytes),
        // MariaDB has no type of its own for it.
        Value::Text(text) if kind == "JSON" => Value::Json(text.parse().unwrap()).to_string(),
        _ => value.to_string(),
    }
}
