"""Runs the same work by one of the MySQL drivers: DRIVER HOST PORT USER PASSWORD DATABASE [CA]. Prints what came out, a line each.

Each line is the same wherever the database is reached; only what the driver itself makes up is left out.
"""

import importlib
import os
import sys

driver, host, port, user, password, database, *ca = sys.argv[1:]
module = importlib.import_module(driver)


def connect():
    options = dict(host=host, port=int(port), user=user, password=password, database=database)
    if driver == "MySQLdb":
        options["charset"] = "utf8mb4"
        options["ssl_mode"] = "VERIFY_CA" if ca else "DISABLED"
        if ca:
            options["ssl"] = {"ca": ca[0]}
        else:
            # libmariadb's own way to do without.
            options["ssl"] = False
            del options["ssl_mode"]
    elif driver == "pymysql":
        if ca:
            options["ssl_ca"] = ca[0]
    elif ca:
        options["ssl_ca"] = ca[0]
    else:
        options["ssl_disabled"] = True
    if os.environ.get("COMPRESSED"):
        options["compress"] = True
    return module.connect(**options)


def rows(cursor, sql, values=None):
    cursor.execute(sql, values) if values else cursor.execute(sql)
    return [tuple(row) for row in cursor.fetchall()]


connection = connect()
cursor = connection.cursor()
cursor.execute("DROP TABLE IF EXISTS orders")
cursor.execute(
    "CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100), price DECIMAL(10,2), at DATETIME(6), raw BLOB)"
    " CHARACTER SET utf8mb4"
)
for number in range(20):
    cursor.execute(
        "INSERT INTO orders (name, price, at, raw) VALUES (%s, %s, %s, %s)",
        (f"näme '{number}' \\ \"x\" 漢字", number * 1.25, f"2026-01-02 03:04:05.{number:06}", b"\x00\xff'\\" * number),
    )
    print("id", cursor.lastrowid, cursor.rowcount)
connection.commit()
print(rows(cursor, "SELECT COUNT(*), SUM(price), MAX(name) FROM orders"))
print(rows(cursor, "SELECT id, name, price, at, raw FROM orders WHERE id < %s ORDER BY id", (6,)))
cursor.executemany("INSERT INTO orders (name, price) VALUES (%s, %s)", [("many", n) for n in range(50)])
print("many", cursor.rowcount)
connection.rollback()
print(rows(cursor, "SELECT COUNT(*) FROM orders"))
cursor.execute("UPDATE orders SET price = price + 1 WHERE id <= 3")
print("updated", cursor.rowcount)
connection.commit()
for wrong in ["SELECT nonsense", "INSERT INTO orders (id) VALUES (1)", "SELEC 1"]:
    try:
        cursor.execute(wrong)
        print("no error")
    except module.Error as error:
        print("error", error.args[0])
    connection.rollback()
print(rows(cursor, "SELECT REPEAT('x', 100000)")[0][0] == "x" * 100000)
print(rows(cursor, "SELECT %s, %s", (None, "a")))
connection.commit()
cursor.close()
connection.close()

# Many short ones.
for number in range(10):
    connection = connect()
    cursor = connection.cursor()
    print(rows(cursor, "SELECT %s + 1", (number,)))
    connection.close()
