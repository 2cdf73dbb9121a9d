//! The program of [`super`] for Rust's drivers: its clients are tasks of the test itself.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, digest};
use futures_util::future;
use sluicegate::demo::servers::{APP, APP_PASSWORD};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};
use uuid::Uuid;

use super::said::{Said, of_lines};

const BATCH: i32 = 1_000;
/// Attempts to cancel: the protocol does not say when a query has begun, so a request may come before it does.
const CANCELS: usize = 5;
/// How much of a large result is asked for at a time.
pub const ROWS_AT_A_TIME: i32 = 500;
/// When a query is cancelled that takes longer by far.
pub const BEFORE_CANCEL: Duration = Duration::from_millis(150);

/// Where a client goes.
#[derive(Clone)]
pub struct Place {
    pub address: SocketAddr,
    pub database: String,
    pub user: &'static str,
    pub password: &'static str,
}

impl Place {
    pub fn new(address: SocketAddr, database: &str) -> Self {
        Self { address, database: database.to_owned(), user: APP, password: APP_PASSWORD }
    }
}

/// What a client was told: the SQLSTATE, or else what happened.
#[derive(Debug)]
pub struct Failed(pub String);

pub type Rows = Vec<Vec<Value>>;

/// What differs from database to database.
pub struct Dialect {
    /// Types and values.
    pub types: &'static str,
    /// What is asked, by name.
    pub statements: &'static str,
}

impl Dialect {
    fn sql(&self, name: &str) -> &'static str {
        let mut lines = self.statements.lines().map(|line| line.split_once('\t').unwrap());
        lines.find(|(known, _)| *known == name).unwrap().1
    }
}

pub static POSTGRES: Dialect = Dialect {
    types: include_str!("../clients/postgres/types.tsv"),
    statements: include_str!("../clients/postgres/statements.tsv"),
};

pub static MYSQL: Dialect = Dialect {
    types: include_str!("../clients/mysql/types.tsv"),
    statements: include_str!("../clients/mysql/statements.tsv"),
};

/// What a client does by its driver.
#[allow(async_fn_in_trait)] // One runtime, one thread.
pub trait Driver: Sized {
    const DIALECT: &'static Dialect;
    async fn open(place: &Place) -> Result<Self, Failed>;
    async fn close(self) -> Result<(), Failed>;
    /// All rows of a query with parameters $1 ...; none for what returns none.
    async fn rows(&mut self, sql: &str, parameters: &[Value]) -> Result<Rows, Failed>;
    /// A command of transactions.
    async fn command(&mut self, sql: &str) -> Result<(), Failed>;
    /// Inserts into `items`, in the driver's way for many, in a transaction of its own.
    async fn many(&mut self, items: &[(i32, String)]) -> Result<(), Failed>;
    /// The rows of a query, [`ROWS_AT_A_TIME`] at a time if the driver can, in a transaction of its own.
    async fn stream(&mut self, sql: &str, each: impl FnMut(i32, &str)) -> Result<(), Failed>;
    /// Runs this, which takes long, and cancels it; false if it ran to its end.
    async fn cancelled(&mut self, sql: &str) -> Result<bool, Failed>;
    /// A value as parameter, as the server's text, from text, and from a literal: what is said of it.
    async fn of_a_type(&mut self, number: u32, kind: &str, text: &str, data: &str) -> Result<String, Failed>;
    async fn null_of_a_type(&mut self, number: u32, kind: &str) -> Result<String, Failed>;
}

/// Runs so many clients side by side, and writes down what they saw.
pub fn run<D: Driver>(place: &Place, clients: u32) -> Said {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = async |number: u32| {
        let mut lines = Vec::new();
        let ended = program::<D>(place, number, &mut lines).await;
        (number, lines, ended)
    };
    let all = future::join_all((0..clients).map(client));
    let seen = runtime.block_on(async { tokio::time::timeout(super::PATIENCE, all).await }).unwrap();
    let mut said = Said::default();
    for (number, lines, ended) in seen {
        match ended {
            Ok(()) => {
                said.digests.insert(number, of_lines(&lines));
            }
            Err(Failed(why)) => said.failures.push(format!("client {number}: {why} after {:?}", lines.last())),
        }
        said.lines.insert(number, lines);
    }
    said
}

async fn program<D: Driver>(place: &Place, number: u32, said: &mut Vec<String>) -> Result<(), Failed> {
    let mut driver = D::open(place).await?;
    let sql = |name| D::DIALECT.sql(name);
    let types = D::DIALECT.types.lines().map(|line| line.split_once('\t').unwrap());
    for (kind, texts) in types.clone() {
        let (text, data) = texts.split_once('\t').unwrap_or((texts, ""));
        said.push(driver.of_a_type(number, kind, text, data).await?);
    }
    let mut kinds: Vec<&str> = types.map(|(kind, _)| kind).collect();
    kinds.dedup();
    for kind in kinds {
        said.push(driver.null_of_a_type(number, kind).await?);
    }
    let mut total = 0;
    for n in 0..20 {
        total += driver.rows(sql("add"), &[Value::Int4(n), Value::Int4(2 * n)]).await?[0][0].int();
    }
    said.push(format!("prepared {total}"));

    let base = i32::try_from(number).unwrap() * 100_000;
    let of_mine = [Value::Int4(base), Value::Int4(base + 99_999)];
    driver.rows(sql("clear"), &of_mine).await?;
    driver.many(&(0..BATCH).map(|n| (base + n, format!("item {n}"))).collect::<Vec<_>>()).await?;
    said.push(format!("batch {}", items(&mut driver, &of_mine).await?));
    driver.command("BEGIN").await?;
    insert(&mut driver, base, BATCH).await?;
    said.push(format!("inside {}", items(&mut driver, &of_mine).await?));
    driver.command("ROLLBACK").await?;
    said.push(format!("rolled back {}", items(&mut driver, &of_mine).await?));

    driver.command("BEGIN").await?;
    insert(&mut driver, base, BATCH + 1).await?;
    said.push(error(driver.rows(sql("fails"), &[Value::Int4(0)]).await));
    said.push(error(driver.rows("SELECT 1", &[]).await));
    driver.command("ROLLBACK").await?;
    said.push(format!("after an error {}", items(&mut driver, &of_mine).await?));
    driver.command("BEGIN").await?;
    insert(&mut driver, base, BATCH + 1).await?;
    driver.command("SAVEPOINT s").await?;
    said.push(error(insert(&mut driver, base, 0).await));
    driver.command("ROLLBACK TO SAVEPOINT s").await?;
    insert(&mut driver, base, BATCH + 2).await?;
    driver.command("COMMIT").await?;
    said.push(format!("after a savepoint {}", items(&mut driver, &of_mine).await?));
    said.push(error(driver.rows("SELEC 1", &[]).await));
    said.push(error(driver.rows(sql("missing"), &[Value::Int4(1)]).await));
    said.push(error(insert(&mut driver, base, 0).await));

    let (mut all, mut count) = (Context::new(&SHA256), 0);
    let each = |n, v: &str| {
        all.update(format!("{n} {v}\n").as_bytes());
        count += 1;
    };
    driver.stream("SELECT n, v FROM numbers ORDER BY n", each).await?;
    said.push(format!("rows {count} {}", hex(all.finish().as_ref())));

    said.push(cancelled(&mut driver, base + 50_000).await?.to_owned());
    said.push(format!("goes on {}", driver.rows(sql("one"), &[Value::Int4(42)]).await?[0][0]));

    let letters: String = ('a'..='z').cycle().take(1_000_000).collect();
    let row = driver.rows(sql("text"), &[Value::Text(letters)]).await?.remove(0);
    let back = row[0].to_string();
    said.push(format!("text {} {} {}", back.len(), row[1], sha256(back.as_bytes())));
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7 % 256).to_be_bytes()[3]).collect();
    let row = driver.rows(sql("bytes"), &[Value::Bytes(bytes)]).await?.remove(0);
    let Value::Bytes(back) = &row[0] else { return Err(Failed(format!("{:?}", row[0]))) };
    said.push(format!("bytea {} {} {}", back.len(), row[1], sha256(back)));

    driver.close().await?;
    let mut driver = D::open(place).await?;
    let again = driver.rows(sql("one"), &[Value::Int4(42)]).await?.remove(0);
    let items = items(&mut driver, &of_mine).await?;
    said.push(format!("again {} {}", again[0], items.split(' ').next().unwrap()));
    driver.close().await
}

/// A cancel counts if the driver says so and the statement has done nothing.
async fn cancelled<D: Driver>(driver: &mut D, key: i32) -> Result<&'static str, Failed> {
    for _ in 0..CANCELS {
        let told = driver.cancelled(&D::DIALECT.sql("sleep").replace("KEY", &key.to_string())).await?;
        let done = driver.rows(D::DIALECT.sql("slept"), &[Value::Int4(key)]).await?;
        driver.rows(D::DIALECT.sql("forget"), &[Value::Int4(key)]).await?;
        if told && done.is_empty() {
            return Ok("cancelled");
        }
    }
    Ok("not cancelled")
}

async fn insert<D: Driver>(driver: &mut D, base: i32, n: i32) -> Result<Rows, Failed> {
    driver.rows(D::DIALECT.sql("insert"), &[Value::Int4(base + n), Value::Text(format!("item {n}"))]).await
}

async fn items<D: Driver>(driver: &mut D, of_mine: &[Value]) -> Result<String, Failed> {
    let row = driver.rows(D::DIALECT.sql("items"), of_mine).await?.remove(0);
    Ok(format!("{} {}", row[0], row[1]))
}

fn error(answer: Result<Rows, Failed>) -> String {
    answer.map_or_else(|Failed(code)| format!("error {code}"), |_| "no error".to_owned())
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as Rust's drivers take and give it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    /// MySQL's alone.
    UInt8(u64),
    Float4(f32),
    Float8(f64),
    Text(String),
    Enum(String),
    Bytes(Vec<u8>),
    Date(Date),
    Time(Time),
    Timestamp(PrimitiveDateTime),
    Timestamptz(OffsetDateTime),
    Uuid(Uuid),
    Json(serde_json::Value),
    Ints(Vec<Option<i32>>),
    Texts(Vec<Option<String>>),
}

impl Value {
    pub fn new(kind: &str, text: &str, data: &str) -> Self {
        match kind {
            "bool" => Self::Bool(text == "true"),
            "int2" => Self::Int2(text.parse().unwrap()),
            "int4" => Self::Int4(text.parse().unwrap()),
            "int8" => Self::Int8(text.parse().unwrap()),
            "float4" => Self::Float4(text.parse().unwrap()),
            "float8" => Self::Float8(text.parse().unwrap()),
            "bytea" => {
                let digits = text.as_bytes()[2..].chunks(2).map(|two| std::str::from_utf8(two).unwrap());
                Self::Bytes(digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect())
            }
            "date" => Self::Date(date(text)),
            "time" => Self::Time(time(text)),
            "timestamp" | "timestamptz" => {
                let (day, rest) = text.split_once(' ').unwrap();
                let moment = PrimitiveDateTime::new(date(day), time(rest.trim_end_matches("+00")));
                if kind == "timestamp" { Self::Timestamp(moment) } else { Self::Timestamptz(moment.assume_utc()) }
            }
            "uuid" => Self::Uuid(text.parse().unwrap()),
            "json" | "jsonb" => Self::Json(text.parse().unwrap()),
            "int4[]" => Self::Ints(serde_json::from_str(data).unwrap()),
            "text[]" => Self::Texts(serde_json::from_str(data).unwrap()),
            "mood" => Self::Enum(text.to_owned()),
            _ => Self::Text(text.to_owned()),
        }
    }

    fn int(&self) -> i64 {
        match self {
            Self::Int4(value) => i64::from(*value),
            Self::Int8(value) => *value,
            _ => panic!("{self:?}"),
        }
    }
}

pub fn date(text: &str) -> Date {
    let mut parts = text.split('-');
    let mut next = || parts.next().unwrap();
    let (year, month, day) = (next().parse().unwrap(), next().parse::<u8>().unwrap(), next().parse().unwrap());
    Date::from_calendar_date(year, Month::try_from(month).unwrap(), day).unwrap()
}

pub fn time(text: &str) -> Time {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = whole.split(':').map(|part| part.parse::<u8>().unwrap());
    let mut next = || parts.next().unwrap();
    Time::from_hms_micro(next(), next(), next(), format!("{fraction:0<6}").parse().unwrap()).unwrap()
}

/// As text: PostgreSQL's own in most cases, bits for floats, JSON for arrays.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => write!(f, "null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int2(value) => write!(f, "{value}"),
            Self::Int4(value) => write!(f, "{value}"),
            Self::Int8(value) => write!(f, "{value}"),
            Self::UInt8(value) => write!(f, "{value}"),
            Self::Float4(value) => write!(f, "{:08x}", value.to_bits()),
            Self::Float8(value) if value.is_nan() => write!(f, "NaN"),
            Self::Float8(value) => write!(f, "{:016x}", value.to_bits()),
            Self::Text(value) | Self::Enum(value) => write!(f, "{value}"),
            Self::Bytes(value) => write!(f, "\\x{}", hex(value)),
            Self::Date(value) => write!(f, "{}", shown_date(*value)),
            Self::Time(value) => write!(f, "{}", shown_time(*value)),
            Self::Timestamp(value) => write!(f, "{} {}", shown_date(value.date()), shown_time(value.time())),
            Self::Timestamptz(value) => {
                // Both drivers give it in UTC.
                write!(f, "{} {}+00", shown_date(value.date()), shown_time(value.time()))
            }
            Self::Uuid(value) => write!(f, "{value}"),
            Self::Json(value) => write!(f, "{value}"),
            Self::Ints(values) => write!(f, "{}", serde_json::to_string(values).unwrap()),
            Self::Texts(values) => write!(f, "{}", serde_json::to_string(values).unwrap()),
        }
    }
}

fn shown_date(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

fn shown_time(time: Time) -> String {
    let (hour, minute, second, micro) = time.as_hms_micro();
    let text = format!("{hour:02}:{minute:02}:{second:02}.{micro:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
