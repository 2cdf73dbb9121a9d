"""Query attributes by MySQL's own driver, of texts and of prepared statements: what the server has heard of each."""
import sys

import mysql.connector

host, port, user, password, name = sys.argv[1:]
db = mysql.connector.connect(host=host, port=int(port), user=user, password=password, database=name)
ASK = "SELECT mysql_query_attribute_string('a'), mysql_query_attribute_string('b')"
for prepared in False, True:
    cursor = db.cursor(prepared=prepared)
    for value in "one", 2, 2.5, b"bytes":
        cursor.add_attribute("a", value)
        cursor.execute(ASK)
        print(cursor.fetchall())
        cursor.clear_attributes()
        cursor.execute(ASK)
        print(cursor.fetchall())
db.close()
