//! tokio-postgres: pipelines for many, portals for much, cancel tokens.

use bytes::BytesMut;
use futures_util::future;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, NoTls, Row};

use super::of_postgres::{self, is_text};
use super::program::{BEFORE_CANCEL, Dialect, Driver, Failed, POSTGRES, Place, ROWS_AT_A_TIME, Rows, Value};

pub struct TokioPostgres(Client);

impl Driver for TokioPostgres {
    const DIALECT: &'static Dialect = &POSTGRES;

    async fn open(place: &Place) -> Result<Self, Failed> {
        let mut config = Config::new();
        config.host(place.address.ip().to_string()).port(place.address.port()).dbname(&place.database);
        config.user(place.user).password(place.password);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            // What goes wrong on it the client's calls say.
            let _ = connection.await;
        });
        Ok(Self(client))
    }

    async fn close(self) -> Result<(), Failed> {
        // Dropped, it closes.
        Ok(())
    }

    async fn rows(&mut self, sql: &str, parameters: &[Value]) -> Result<Rows, Failed> {
        let parameters: Vec<_> = parameters.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let rows = self.0.query(sql, &parameters).await?;
        Ok(rows.iter().map(|row| (0..row.len()).map(|column| value(row, column)).collect()).collect())
    }

    async fn command(&mut self, sql: &str) -> Result<(), Failed> {
        Ok(self.0.batch_execute(sql).await?)
    }

    async fn many(&mut self, items: &[(i32, String)]) -> Result<(), Failed> {
        let transaction = self.0.transaction().await?;
        let insert = transaction.prepare("INSERT INTO items VALUES ($1, $2)").await?;
        // Futures polled together are sent together.
        let inserting = items.iter().map(async |(id, v)| transaction.execute(&insert, &[id, v]).await);
        future::try_join_all(inserting).await?;
        Ok(transaction.commit().await?)
    }

    async fn stream(&mut self, sql: &str, mut each: impl FnMut(i32, &str)) -> Result<(), Failed> {
        let transaction = self.0.transaction().await?;
        let portal = transaction.bind(sql, &[]).await?;
        loop {
            let rows = transaction.query_portal(&portal, ROWS_AT_A_TIME).await?;
            if rows.is_empty() {
                break;
            }
            rows.iter().for_each(|row| each(row.get(0), row.get(1)));
        }
        Ok(transaction.commit().await?)
    }

    async fn cancelled(&mut self, sql: &str) -> Result<bool, Failed> {
        let cancel = async {
            tokio::time::sleep(BEFORE_CANCEL).await;
            self.0.cancel_token().cancel_query(NoTls).await
        };
        let (ended, cancelled) = future::join(self.0.execute(sql, &[]), cancel).await;
        cancelled?;
        match ended.map_err(Failed::from) {
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

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned()))
    }
}

fn value(row: &Row, column: usize) -> Value {
    row.get::<_, Option<Value>>(column).unwrap_or(Value::Null)
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Bool(value) => value.to_sql(ty, out),
            Self::Int2(value) => value.to_sql(ty, out),
            Self::Int4(value) => value.to_sql(ty, out),
            Self::Int8(value) => value.to_sql(ty, out),
            Self::UInt8(_) => unreachable!("not one of PostgreSQL's"),
            Self::Float4(value) => value.to_sql(ty, out),
            Self::Float8(value) => value.to_sql(ty, out),
            Self::Text(value) | Self::Enum(value) => value.to_sql(ty, out),
            Self::Bytes(value) => value.to_sql(ty, out),
            Self::Date(value) => value.to_sql(ty, out),
            Self::Time(value) => value.to_sql(ty, out),
            Self::Timestamp(value) => value.to_sql(ty, out),
            Self::Timestamptz(value) => value.to_sql(ty, out),
            Self::Uuid(value) => value.to_sql(ty, out),
            Self::Json(value) => value.to_sql(ty, out),
            Self::Ints(value) => value.to_sql(ty, out),
            Self::Texts(value) => value.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // The cast around it says what the type is.
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match *ty {
            Type::BOOL => Self::Bool(FromSql::from_sql(ty, raw)?),
            Type::INT2 => Self::Int2(FromSql::from_sql(ty, raw)?),
            Type::INT4 => Self::Int4(FromSql::from_sql(ty, raw)?),
            Type::INT8 => Self::Int8(FromSql::from_sql(ty, raw)?),
            Type::FLOAT4 => Self::Float4(FromSql::from_sql(ty, raw)?),
            Type::FLOAT8 => Self::Float8(FromSql::from_sql(ty, raw)?),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR => Self::Text(FromSql::from_sql(ty, raw)?),
            Type::BYTEA => Self::Bytes(FromSql::from_sql(ty, raw)?),
            Type::DATE => Self::Date(FromSql::from_sql(ty, raw)?),
            Type::TIME => Self::Time(FromSql::from_sql(ty, raw)?),
            Type::TIMESTAMP => Self::Timestamp(FromSql::from_sql(ty, raw)?),
            Type::TIMESTAMPTZ => Self::Timestamptz(FromSql::from_sql(ty, raw)?),
            Type::UUID => Self::Uuid(FromSql::from_sql(ty, raw)?),
            Type::JSON | Type::JSONB => Self::Json(FromSql::from_sql(ty, raw)?),
            Type::INT4_ARRAY => Self::Ints(FromSql::from_sql(ty, raw)?),
            Type::TEXT_ARRAY => Self::Texts(FromSql::from_sql(ty, raw)?),
            // The driver has asked the catalog what it is.
            _ if matches!(ty.kind(), Kind::Enum(_)) => Self::Enum(std::str::from_utf8(raw)?.to_owned()),
            _ => return Err(format!("a value of type {ty}").into()),
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
