//! sqlx: statements prepared and kept; rows streamed; no cancel but the server's own time limit.

use futures_util::TryStreamExt;
use sqlx_core::column::Column;
use sqlx_core::connection::Connection;
use sqlx_core::decode::Decode;
use sqlx_core::executor::Executor;
use sqlx_core::query::{Query, query};
use sqlx_core::row::Row;
use sqlx_core::type_info::TypeInfo;
use sqlx_mysql::{
    MySql, MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow, MySqlSslMode,
};
use time::{Date, PrimitiveDateTime, Time};

use super::of_mysql;
use super::program::{BEFORE_CANCEL, Dialect, Driver, Failed, MYSQL, Place, Rows, Value};

pub struct Sqlx(MySqlConnection);

impl Driver for Sqlx {
    const DIALECT: &'static Dialect = &MYSQL;

    async fn open(place: &Place) -> Result<Self, Failed> {
        let options = MySqlConnectOptions::new().host(&place.address.ip().to_string()).port(place.address.port());
        let options = options.username(place.user).password(place.password).database(&place.database);
        Ok(Self(MySqlConnection::connect_with(&options.ssl_mode(MySqlSslMode::Disabled)).await.map_err(failed)?))
    }

    async fn close(self) -> Result<(), Failed> {
        self.0.close().await.map_err(failed)
    }

    async fn rows(&mut self, sql: &str, parameters: &[Value]) -> Result<Rows, Failed> {
        let sql = sql.replace("$1", "?").replace("$2", "?");
        let query = parameters.iter().fold(query(&sql), bind);
        let rows = query.fetch_all(&mut self.0).await.map_err(failed)?;
        rows.iter().map(|row| (0..row.len()).map(|column| value(row, column)).collect()).collect()
    }

    async fn command(&mut self, sql: &str) -> Result<(), Failed> {
        self.0.execute(sql).await.map_err(failed)?;
        Ok(())
    }

    async fn many(&mut self, items: &[(i32, String)]) -> Result<(), Failed> {
        let mut transaction = self.0.begin().await.map_err(failed)?;
        for (id, v) in items {
            let insert = query("INSERT INTO items VALUES (?, ?)").bind(id).bind(v);
            insert.execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    async fn stream(&mut self, sql: &str, mut each: impl FnMut(i32, &str)) -> Result<(), Failed> {
        let mut transaction = self.0.begin().await.map_err(failed)?;
        let mut rows = query(sql).fetch(&mut *transaction);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            each(row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        }
        drop(rows);
        transaction.commit().await.map_err(failed)
    }

    async fn cancelled(&mut self, sql: &str) -> Result<bool, Failed> {
        // MySQL has a limit for what reads, and MariaDB another one.
        let ms = BEFORE_CANCEL.as_millis();
        let limits = format!(
            "/*M!100100 SET STATEMENT max_statement_time = {} FOR */ SELECT /*+ MAX_EXECUTION_TIME({ms}) */",
            BEFORE_CANCEL.as_secs_f64()
        );
        match self.0.execute(sql.replace("INSERT INTO items SELECT", &limits).as_str()).await.map_err(failed) {
            Ok(_) => Ok(false),
            Err(Failed(code)) if ["3024", "1969"].contains(&code.as_str()) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn of_a_type(&mut self, number: u32, kind: &str, text: &str, _: &str) -> Result<String, Failed> {
        of_mysql::of_a_type(self, number, kind, text).await
    }

    async fn null_of_a_type(&mut self, number: u32, kind: &str) -> Result<String, Failed> {
        of_mysql::null(self, number, kind).await
    }
}

/// The error's number: its code is the SQLSTATE.
fn failed(error: sqlx_core::Error) -> Failed {
    let told = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    Failed(told.map_or_else(|| format!("{error:?}"), |error| error.number().to_string()))
}

fn bind<'q>(query: Query<'q, MySql, MySqlArguments>, value: &'q Value) -> Query<'q, MySql, MySqlArguments> {
    match value {
        Value::Null => query.bind(None::<String>),
        Value::Int4(value) => query.bind(value),
        Value::Int8(value) => query.bind(value),
        Value::UInt8(value) => query.bind(value),
        Value::Float4(value) => query.bind(value),
        Value::Float8(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(value),
        Value::Date(value) => query.bind(value),
        Value::Time(value) => query.bind(value),
        Value::Timestamp(value) => query.bind(value),
        other => unreachable!("not one of MySQL's: {other:?}"),
    }
}

fn value(row: &MySqlRow, column: usize) -> Result<Value, Failed> {
    fn read<'r, T: Decode<'r, MySql>>(
        row: &'r MySqlRow,
        column: usize,
        made: impl Fn(T) -> Value,
    ) -> Result<Value, Failed> {
        let value = row.try_get_unchecked::<Option<T>, _>(column).map_err(failed)?;
        Ok(value.map_or(Value::Null, made))
    }
    match row.column(column).type_info().name() {
        "TINYINT" | "SMALLINT" | "INT" | "BIGINT" => read(row, column, Value::Int8),
        "SMALLINT UNSIGNED" | "BIGINT UNSIGNED" => read(row, column, Value::UInt8),
        "YEAR" => read(row, column, |value: u16| Value::UInt8(u64::from(value))),
        "FLOAT" => read(row, column, Value::Float4),
        "DOUBLE" => read(row, column, Value::Float8),
        "VARBINARY" | "BLOB" | "LONGBLOB" | "MEDIUMBLOB" => read(row, column, Value::Bytes),
        "DATE" => read::<Date>(row, column, Value::Date),
        "TIME" => read::<Time>(row, column, Value::Time),
        "DATETIME" | "TIMESTAMP" => read::<PrimitiveDateTime>(row, column, Value::Timestamp),
        _ => read(row, column, Value::Text),
    }
}
