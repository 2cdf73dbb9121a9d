//! Object-relational mappers over MySQL's drivers, as applications use them, ten clients on two database connections: they keep objects in
//! four tables, and say the same directly and through the proxy, all ways alike. None pins, and no client fails.

use std::cell::OnceCell;

use crate::harness::mysql::beside::my_config;
use crate::harness::mysql::{database, servers};
use crate::harness::proxy::{set, start};

use super::mysql::plain;
use super::{CONTROL_CONNECTIONS, Driver, How, compare};

const CLIENTS: u32 = 10;
/// As `clients/python/orm.py` has them.
const TABLES: [&str; 5] = [
    "ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
    "CREATE TABLE authors (id INT AUTO_INCREMENT PRIMARY KEY, owner INT NOT NULL, name VARCHAR(60) NOT NULL, \
     rating DECIMAL(12, 4), seen DATETIME(6), born DATE, active TINYINT(1) NOT NULL, photo LONGBLOB, UNIQUE (owner, name))",
    "CREATE TABLE books (id INT AUTO_INCREMENT PRIMARY KEY, author_id INT NOT NULL, title VARCHAR(100) NOT NULL, \
     price DECIMAL(10, 2), FOREIGN KEY (author_id) REFERENCES authors (id))",
    "CREATE TABLE tags (id INT AUTO_INCREMENT PRIMARY KEY, owner INT NOT NULL, word VARCHAR(30) NOT NULL)",
    "CREATE TABLE book_tags (id INT AUTO_INCREMENT PRIMARY KEY, book_id INT NOT NULL, tag_id INT NOT NULL, \
     UNIQUE (book_id, tag_id), FOREIGN KEY (book_id) REFERENCES books (id), FOREIGN KEY (tag_id) REFERENCES tags (id))",
];

const fn sqlalchemy(variant: &'static str) -> Driver {
    Driver { variant, ..plain("SQLAlchemy", How::Python("sqlalchemy_orm"), "", "") }
}

const fn django(variant: &'static str) -> Driver {
    Driver { variant, ..plain("Django", How::Python("django_orm"), "", "") }
}

const ORMS: [Driver; 4] =
    [sqlalchemy("over PyMySQL"), sqlalchemy("over mysqlclient"), django("over mysqlclient"), django("over PyMySQL")];

#[test]
fn objects_are_the_same() {
    let first = OnceCell::new();
    for (number, driver) in ORMS.iter().enumerate() {
        for server in servers() {
            let name = database(server, &format!("orm_{number}_{:?}", server.flavour()).to_lowercase(), &TABLES);
            let config = my_config(server, driver.connections + CONTROL_CONNECTIONS);
            let proxy = start(&set(&config, "target_group.pool", "connection_borrow_timeout", "\"90s\""));
            let row = compare(driver, server.address(), &name, &proxy, CLIENTS, &first);
            assert!(row.pins.is_empty() && row.errors.is_empty(), "{row}");
            assert_eq!(proxy.metric("sluicegate_pins_total"), 0.0, "{row}");
        }
    }
}
