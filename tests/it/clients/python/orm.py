"""What the programs of the object-relational mappers (`with_*_orm.py`) have in common: they keep the same objects in the same tables,
by the same steps, and say the same. `drivers/orms.rs` has the tables."""

import datetime
import decimal

import program

ROUNDS = 2
MANY = 60
# An author whose name needs its character set, and signs that `LIKE` knows.
NAME = "Žofie 𝄞, 100% of a_b's \\ names"
AUTHOR = {
    "name": NAME,
    "rating": decimal.Decimal("12345678.9012"),
    "seen": datetime.datetime(2024, 2, 29, 12, 34, 56, 789012),
    "born": None,
    "active": True,
    "photo": bytes(range(256)),
}
BOOKS = [("One", decimal.Decimal("9.99")), ("Two: %s ? $1", decimal.Decimal("0.01")), ("Ďalšia", None)]
WORDS = ["red", "grün", "蓝"]
# By either of its names.
ISOLATION = "SHOW VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')"


class Orm:
    """A client: its rows are those of its number."""

    def __init__(self, number):
        self.owner = number
        self.open()


def shown(author, books):
    photo = bytes(author.photo).hex()
    values = [author.name, author.rating, author.seen, author.born, bool(author.active), photo]
    return " | ".join(map(str, values + [f"{book.title} {book.price}" for book in books]))


def steps(client):
    """Each round by connections of its own; what it leaves is nothing."""
    for number in range(ROUNDS):
        yield from client.round(number)
        client.close()
        client.open()
    client.close()


def main(orm):
    program.main(orm, steps)
