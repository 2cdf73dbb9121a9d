//! sqlx: statements prepared by name and kept; rows streamed, no portals; no cancel but the server's own time limit.

use futures_util::TryStreamExt;
use sqlx_core::column::Column;
use sqlx_core::connection::Connection;
use sqlx_core::decode::Decode;
use sqlx_core::encode::{Encode, IsNull};
use sqlx_core::error::BoxDynError;
use sqlx_core::executor::Executor;
use sqlx_core::query::{Query, query};
use sqlx_core::row::Row;
use sqlx_core::type_info::TypeInfo;
use sqlx_core::types::Type;
use sqlx_postgres::{
    PgArgumentBuffer, PgArguments, PgConnectOptions, PgConnection, PgRow, PgTypeInfo, PgValueRef, Postgres,
};

use super::of_postgres::{self, is_text};
use super::program::{BEFORE_CANCEL, Dialect, Driver, Failed, POSTGRES, Place, Rows, Value};

pub struct Sqlx(PgConnection);

impl Driver for Sqlx {
    const DIALECT: &'static Dialect = &POSTGRES;

    async fn open(place: &Place) -> Result<Self, Failed> {
        let options = PgConnectOptions::new().host(&place.address.ip().to_string()).port(place.address.port());
        let options = options.username(place.user).password(place.password).database(&place.database);
        Ok(Self(PgConnection::connect_with(&options).await?))
    }

    async fn close(self) -> Result<(), Failed> {
        Ok(self.0.close().await?)
    }

    async fn rows(&mut self, sql: &str, parameters: &[Value]) -> Result<Rows, Failed> {
        let query = parameters.iter().fold(query(sql), bind);
        let rows = query.fetch_all(&mut self.0).await?;
        rows.iter().map(|row| (0..row.len()).map(|column| value(row, column)).collect()).collect()
    }

    async fn command(&mut self, sql: &str) -> Result<(), Failed> {
        self.0.execute(sql).await?;
        Ok(())
    }

    async fn many(&mut self, items: &[(i32, String)]) -> Result<(), Failed> {
        let mut transaction = self.0.begin().await?;
        for (id, v) in items {
            query("INSERT INTO items VALUES ($1, $2)").bind(id).bind(v).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn stream(&mut self, sql: &str, mut each: impl FnMut(i32, &str)) -> Result<(), Failed> {
        let mut transaction = self.0.begin().await?;
        let mut rows = query(sql).fetch(&mut *transaction);
        while let Some(row) = rows.try_next().await? {
            each(row.try_get(0)?, row.try_get(1)?);
        }
        drop(rows);
        Ok(transaction.commit().await?)
    }

    async fn cancelled(&mut self, sql: &str) -> Result<bool, Failed> {
        let mut transaction = self.0.begin().await?;
        let limit = format!("SET LOCAL statement_timeout = '{}ms'", BEFORE_CANCEL.as_millis());
        transaction.execute(limit.as_str()).await?;
        let ended = query(sql).execute(&mut *transaction).await.map_err(Failed::from);
        transaction.rollback().await?;
        match ended {
            Ok(_) => Ok(false),
            Err(Failed(code)) if code == "57014" => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn of_a_type(&mut self, _: u32, kind: &str, text: &str, data: &str) -> Result<String, Failed> {
        of_postgres::of_a_type(self, is_text(kind), kind, text, data).await
    }

    async fn null_of_a_type(&mut self, _: u32, kind: &str) -> Result<String, Failed> {
        of_postgres::null(self, is_text(kind), kind).await
    }
}

impl From<sqlx_core::Error> for Failed {
    fn from(error: sqlx_core::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        Self(code.unwrap_or_else(|| format!("{error:?}")))
    }
}

fn bind<'q>(query: Query<'q, Postgres, PgArguments>, value: &'q Value) -> Query<'q, Postgres, PgArguments> {
    match value {
        Value::Null => query.bind(None::<String>),
        Value::Bool(value) => query.bind(value),
        Value::Int2(value) => query.bind(value),
        Value::Int4(value) => query.bind(value),
        Value::Int8(value) => query.bind(value),
        Value::UInt8(_) => unreachable!("not one of PostgreSQL's"),
        Value::Float4(value) => query.bind(value),
        Value::Float8(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Enum(value) => query.bind(Mood(value.clone())),
        Value::Bytes(value) => query.bind(value),
        Value::Date(value) => query.bind(value),
        Value::Time(value) => query.bind(value),
        Value::Timestamp(value) => query.bind(value),
        Value::Timestamptz(value) => query.bind(value),
        Value::Uuid(value) => query.bind(value),
        Value::Json(value) => query.bind(value),
        Value::Ints(value) => query.bind(value),
        Value::Texts(value) => query.bind(value),
    }
}

fn value(row: &PgRow, column: usize) -> Result<Value, Failed> {
    fn read<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
        row: &'r PgRow,
        column: usize,
        made: impl Fn(T) -> Value,
    ) -> Result<Value, Failed> {
        Ok(row.try_get::<Option<T>, _>(column)?.map_or(Value::Null, made))
    }
    match row.column(column).type_info().name() {
        "BOOL" => read(row, column, Value::Bool),
        "INT2" => read(row, column, Value::Int2),
        "INT4" => read(row, column, Value::Int4),
        "INT8" => read(row, column, Value::Int8),
        "FLOAT4" => read(row, column, Value::Float4),
        "FLOAT8" => read(row, column, Value::Float8),
        "TEXT" | "VARCHAR" | "CHAR" => read(row, column, Value::Text),
        "BYTEA" => read(row, column, Value::Bytes),
        "DATE" => read(row, column, Value::Date),
        "TIME" => read(row, column, Value::Time),
        "TIMESTAMP" => read(row, column, Value::Timestamp),
        "TIMESTAMPTZ" => read(row, column, Value::Timestamptz),
        "UUID" => read(row, column, Value::Uuid),
        "JSON" | "JSONB" => read(row, column, Value::Json),
        "INT4[]" => read(row, column, Value::Ints),
        "TEXT[]" => read(row, column, Value::Texts),
        "mood" => read(row, column, |Mood(value)| Value::Enum(value)),
        other => Err(Failed(format!("a value of type {other}"))),
    }
}

/// The enum of the test's database, which the driver looks up by its name.
struct Mood(String);

impl Type<Postgres> for Mood {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("mood")
    }
}

impl Encode<'_, Postgres> for Mood {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <&str as Encode<Postgres>>::encode(self.0.as_str(), buffer)
    }
}

impl Decode<'_, Postgres> for Mood {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(value.as_str()?.to_owned()))
    }
}
