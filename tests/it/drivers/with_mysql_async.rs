//! mysql_async: statements prepared and kept; rows streamed; a query is stopped by KILL QUERY over a second connection.

use futures_util::future;
use mysql_async::consts::ColumnType;
use mysql_async::prelude::Queryable;
use mysql_async::{Column, Conn, Error, OptsBuilder, TxOpts, Value as MyValue};
use time::{Date, Month, PrimitiveDateTime, Time};

use super::of_mysql;
use super::program::{BEFORE_CANCEL, Dialect, Driver, Failed, MYSQL, Place, Rows, Value};

/// The charset of bytes that are no text.
const BINARY: u16 = 63;

pub struct MySqlAsync {
    conn: Conn,
    options: OptsBuilder,
}

impl Driver for MySqlAsync {
    const DIALECT: &'static Dialect = &MYSQL;

    async fn open(place: &Place) -> Result<Self, Failed> {
        let options = OptsBuilder::default().ip_or_hostname(place.address.ip().to_string());
        let options = options.tcp_port(place.address.port()).db_name(Some(&place.database));
        let options = options.user(Some(place.user)).pass(Some(place.password));
        // Else it asks for them as it connects, and who is to stop a query would wait for a connection.
        let options = options.max_allowed_packet(Some(64 << 20)).wait_timeout(Some(28_800)).prefer_socket(false);
        Ok(Self { conn: Conn::new(options.clone()).await?, options })
    }

    async fn close(self) -> Result<(), Failed> {
        Ok(self.conn.disconnect().await?)
    }

    async fn rows(&mut self, sql: &str, parameters: &[Value]) -> Result<Rows, Failed> {
        let sql = sql.replace("$1", "?").replace("$2", "?");
        let parameters: Vec<MyValue> = parameters.iter().map(given).collect();
        let rows: Vec<mysql_async::Row> = self.conn.exec(sql, parameters).await?;
        Ok(rows
            .iter()
            .map(|row| row.columns_ref().iter().enumerate().map(|(at, column)| taken(column, &row[at])).collect())
            .collect())
    }

    async fn command(&mut self, sql: &str) -> Result<(), Failed> {
        Ok(self.conn.query_drop(sql).await?)
    }

    async fn many(&mut self, items: &[(i32, String)]) -> Result<(), Failed> {
        let mut transaction = self.conn.start_transaction(TxOpts::default()).await?;
        transaction.exec_batch("INSERT INTO items VALUES (?, ?)", items).await?;
        Ok(transaction.commit().await?)
    }

    async fn stream(&mut self, sql: &str, mut each: impl FnMut(i32, &str)) -> Result<(), Failed> {
        let mut transaction = self.conn.start_transaction(TxOpts::default()).await?;
        let mut rows = transaction.exec_iter(sql, ()).await?;
        while let Some(row) = rows.next().await? {
            let (n, v): (i32, String) = mysql_async::from_row(row);
            each(n, &v);
        }
        Ok(transaction.commit().await?)
    }

    async fn cancelled(&mut self, sql: &str) -> Result<bool, Failed> {
        let (id, options) = (self.conn.id(), self.options.clone());
        let cancel = async {
            tokio::time::sleep(BEFORE_CANCEL).await;
            let mut other = Conn::new(options).await?;
            other.query_drop(format!("KILL QUERY {id}")).await?;
            other.disconnect().await
        };
        let (ended, cancelled) = future::join(self.conn.query_drop(sql), cancel).await;
        cancelled?;
        match ended.map_err(Failed::from) {
            Ok(()) => Ok(false),
            Err(Failed(code)) if code == "1317" => Ok(true),
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

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        if let Error::Server(error) = error { Self(error.code.to_string()) } else { Self(format!("{error:?}")) }
    }
}

fn given(value: &Value) -> MyValue {
    match value {
        Value::Null => MyValue::NULL,
        Value::Int4(value) => MyValue::Int(i64::from(*value)),
        Value::Int8(value) => MyValue::Int(*value),
        Value::UInt8(value) => MyValue::UInt(*value),
        Value::Float4(value) => MyValue::Float(*value),
        Value::Float8(value) => MyValue::Double(*value),
        Value::Text(value) => value.into(),
        Value::Bytes(value) => value.into(),
        Value::Date(date) => moment(*date, Time::MIDNIGHT),
        Value::Time(time) => {
            let (hour, minute, second, micro) = time.as_hms_micro();
            MyValue::Time(false, 0, hour, minute, second, micro)
        }
        Value::Timestamp(value) => moment(value.date(), value.time()),
        other => unreachable!("not one of MySQL's: {other:?}"),
    }
}

fn moment(date: Date, time: Time) -> MyValue {
    let (year, month, day) = (u16::try_from(date.year()).unwrap(), u8::from(date.month()), date.day());
    let (hour, minute, second, micro) = time.as_hms_micro();
    MyValue::Date(year, month, day, hour, minute, second, micro)
}

fn taken(column: &Column, value: &MyValue) -> Value {
    match value {
        MyValue::NULL => Value::Null,
        MyValue::Int(value) => Value::Int8(*value),
        MyValue::UInt(value) => Value::UInt8(*value),
        MyValue::Float(value) => Value::Float4(*value),
        MyValue::Double(value) => Value::Float8(*value),
        MyValue::Date(year, month, day, hour, minute, second, micro) => {
            let date = Date::from_calendar_date(i32::from(*year), Month::try_from(*month).unwrap(), *day).unwrap();
            if column.column_type() == ColumnType::MYSQL_TYPE_DATE {
                return Value::Date(date);
            }
            Value::Timestamp(PrimitiveDateTime::new(
                date,
                Time::from_hms_micro(*hour, *minute, *second, *micro).unwrap(),
            ))
        }
        MyValue::Time(_, _, hour, minute, second, micro) => {
            Value::Time(Time::from_hms_micro(*hour, *minute, *second, *micro).unwrap())
        }
        MyValue::Bytes(bytes) => {
            use ColumnType::{MYSQL_TYPE_JSON, MYSQL_TYPE_NEWDECIMAL};
            let is_text = [MYSQL_TYPE_JSON, MYSQL_TYPE_NEWDECIMAL].contains(&column.column_type());
            if column.character_set() == BINARY && !is_text {
                return Value::Bytes(bytes.clone());
            }
            Value::Text(String::from_utf8(bytes.clone()).unwrap())
        }
    }
}
