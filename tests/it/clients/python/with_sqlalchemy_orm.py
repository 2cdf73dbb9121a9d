"""SQLAlchemy's ORM over PyMySQL or mysqlclient, as the variant says: sessions, relations, batches, savepoints, its isolation levels."""

import datetime
import decimal

import sqlalchemy as sa
from sqlalchemy import orm as sa_orm
from sqlalchemy.dialects import mysql

import orm
import program

# What it calls the driver, and what that must be told: libmariadb wants TLS unless told otherwise.
DRIVER, OPTIONS = {"over PyMySQL": ("pymysql", {}), "over mysqlclient": ("mysqldb", {"ssl": False})}[program.VARIANT]
URL = sa.URL.create(f"mysql+{DRIVER}", program.USER, program.PASSWORD, program.HOST, program.PORT, program.DATABASE)


class Base(sa_orm.DeclarativeBase):
    pass


BOOK_TAGS = sa.Table(
    "book_tags", Base.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("book_id", sa.ForeignKey("books.id")),
    sa.Column("tag_id", sa.ForeignKey("tags.id")),
)


class Author(Base):
    __tablename__ = "authors"
    id: sa_orm.Mapped[int] = sa_orm.mapped_column(primary_key=True)
    owner: sa_orm.Mapped[int]
    name: sa_orm.Mapped[str] = sa_orm.mapped_column(sa.String(60))
    rating: sa_orm.Mapped[decimal.Decimal | None] = sa_orm.mapped_column(sa.Numeric(12, 4))
    seen: sa_orm.Mapped[datetime.datetime | None] = sa_orm.mapped_column(mysql.DATETIME(fsp=6))
    born: sa_orm.Mapped[datetime.date | None]
    active: sa_orm.Mapped[bool] = sa_orm.mapped_column(default=True)
    photo: sa_orm.Mapped[bytes | None] = sa_orm.mapped_column(sa.LargeBinary)
    books: sa_orm.Mapped[list["Book"]] = sa_orm.relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Book.id")


class Book(Base):
    __tablename__ = "books"
    id: sa_orm.Mapped[int] = sa_orm.mapped_column(primary_key=True)
    author_id: sa_orm.Mapped[int] = sa_orm.mapped_column(sa.ForeignKey("authors.id"))
    title: sa_orm.Mapped[str] = sa_orm.mapped_column(sa.String(100))
    price: sa_orm.Mapped[decimal.Decimal | None] = sa_orm.mapped_column(sa.Numeric(10, 2))
    author: sa_orm.Mapped[Author] = sa_orm.relationship(back_populates="books")
    tags: sa_orm.Mapped[list["Tag"]] = sa_orm.relationship(secondary=BOOK_TAGS, order_by="Tag.id")


class Tag(Base):
    __tablename__ = "tags"
    id: sa_orm.Mapped[int] = sa_orm.mapped_column(primary_key=True)
    owner: sa_orm.Mapped[int]
    word: sa_orm.Mapped[str] = sa_orm.mapped_column(sa.String(30))


class Sessions(orm.Orm):
    name, version = "SQLAlchemy", sa.__version__

    def open(self):
        # As Django's: without locks of what is not there, on which clients would wait for each other.
        self.engine = sa.create_engine(URL, connect_args=OPTIONS, isolation_level="READ COMMITTED")

    def close(self):
        self.engine.dispose()

    def session(self):
        return sa_orm.Session(self.engine)

    def count(self, *where):
        with self.session() as session:
            counted = sa.select(sa.func.count()).select_from(Author).where(Author.owner == self.owner, *where)
            return session.scalar(counted)

    def author(self, name, **values):
        return Author(owner=self.owner, name=name, **values)

    def round(self, number):
        with self.session() as session, session.begin():
            author = Author(owner=self.owner, **orm.AUTHOR)
            author.books = [Book(title=title, price=price) for title, price in orm.BOOKS]
            session.add(author)
            session.flush()
            key = author.id
            yield f"created {[book.author_id - key for book in author.books]}"
        with self.session() as session:
            author = session.scalars(sa.select(Author).where(Author.owner == self.owner, Author.name == orm.NAME)).one()
            yield f"{author.id - key} {orm.shown(author, author.books)}"

        with self.session() as session, session.begin():
            session.add_all([self.author(f"item {number} {n}") for n in range(orm.MANY)])
        yield f"many {self.count()}"
        names = [
            Author.name.startswith(f"item {number} 1", autoescape=True),
            Author.name.contains("100%", autoescape=True),
            Author.name.contains("a_b's \\", autoescape=True),
            Author.name.contains("_", autoescape=True),
            Author.born.is_(None),
        ]
        yield f"like {[self.count(name) for name in names]}"

        with self.session() as session, session.begin():
            own = sa.update(Author).where(Author.id == key).execution_options(synchronize_session=False)
            added = session.execute(own.values(rating=Author.rating + 1)).rowcount
            same = session.execute(own.values(active=True)).rowcount
            yield f"updated {added} {same} {session.scalar(sa.select(Author.rating).where(Author.id == key))}"

        with self.session() as session, session.begin():
            session.get(Author, key).born = datetime.date(1969, 12, 31)
            try:
                with session.begin_nested():
                    session.add(self.author(f"before {number}"))
                    session.add(self.author(f"item {number} 5"))
                    session.flush()
            except sa.exc.IntegrityError as error:
                yield f"savepoint {error.orig.args[0]}"
            with session.begin_nested():
                session.add(self.author(f"after {number}"))
        names = [Author.name.in_([f"before {number}", f"after {number}"]), Author.born.is_(None)]
        yield f"saved {[self.count(name) for name in names]}"
        try:
            with self.session() as session, session.begin():
                session.add(self.author(f"never {number}"))
                session.flush()
                session.get(Author, key).active = False
                session.flush()
                raise KeyError(key)
        except KeyError:
            yield f"rolled back {self.count()} {self.count(Author.active.is_(False))}"
        try:
            with self.session() as session, session.begin():
                session.add(Book(author_id=-1, title="Nobody's"))
        except sa.exc.IntegrityError as error:
            yield f"nobody's {error.orig.args[0]}"

        alone = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        with sa_orm.Session(alone) as session:
            session.add(self.author(f"alone {number}"))
            session.flush()
        yield f"alone {self.count(Author.name == f'alone {number}')}"
        with self.session() as session, session.begin():
            author = session.scalars(sa.select(Author).where(Author.id == key).with_for_update()).one()
            author.rating = author.rating * 2
            session.flush()
            yield f"locked {session.scalar(sa.select(Author.rating).where(Author.id == key))}"
        with self.session() as session:
            sums = sa.select(sa.func.count(Book.id), sa.func.sum(Book.price), sa.func.min(Book.price))
            sums = sums.join(Book.author).where(Author.owner == self.owner).group_by(Author.id)
            yield f"sums {[tuple(map(str, row)) for row in session.execute(sums)]}"

        with self.session() as session, session.begin():
            book = session.get(Author, key).books[0]
            book.tags = [Tag(owner=self.owner, word=word) for word in orm.WORDS]
        with self.session() as session, session.begin():
            book = session.get(Author, key).books[0]
            yield f"tags {[tag.word for tag in book.tags]}"
            session.delete(book.tags.pop(1))
        with self.session() as session, session.begin():
            book = session.get(Author, key).books[0]
            yield f"tags {[tag.word for tag in book.tags]}"
            for tag in list(book.tags):
                book.tags.remove(tag)
                session.delete(tag)
        with self.session() as session, session.begin():
            yield f"isolation {session.execute(sa.text(orm.ISOLATION)).one()[1]}"
            session.delete(session.get(Author, key))
            for author in session.scalars(sa.select(Author).where(Author.owner == self.owner, Author.id != key)):
                session.delete(author)
        yield f"deleted {self.count()}"


orm.main(Sessions)
