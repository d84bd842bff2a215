import unittest
from contextlib import closing

import psycopg
import redis

from caseexec import ServicesMixin
from caseexec.servers import PostgreSQL, Redis


class ShopTests(ServicesMixin, unittest.TestCase):
    db = PostgreSQL(scope="session", if_missing="skip")
    cache = Redis(scope="session", if_missing="skip", reset=True)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # What each test begins with is made once, in a database that is the template of theirs.
        template = cls.db.database()
        cls.addClassCleanup(template.drop)
        cls.template = template.name
        with closing(psycopg.connect(template.dsn, autocommit=True)) as connection:
            connection.execute("CREATE TABLE fruit AS SELECT 'quince' AS name")

    def setUp(self):
        super().setUp()
        self.database = self.enterContext(self.db.database(template=self.template))
        self.connection = self.enterContext(closing(psycopg.connect(self.database.dsn, autocommit=True)))

    def count(self):
        return self.connection.execute("SELECT count(*) FROM fruit").fetchone()[0]

    def test_a_fruit_is_sold(self):
        self.connection.execute("DELETE FROM fruit")
        self.assertEqual(self.count(), 0)

    def test_a_fruit_is_bought(self):
        self.connection.execute("INSERT INTO fruit VALUES ('medlar')")
        self.assertEqual(self.count(), 2)

    def test_the_cache_is_empty(self):
        with redis.Redis.from_url(self.cache.url) as client:
            self.assertEqual(client.dbsize(), 0)
            client.set("quince", "yellow")


if __name__ == "__main__":
    unittest.main()
