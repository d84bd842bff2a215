"""The settings for a run on one PostgreSQL with two databases, which begin with what a dump has."""

from caseexec import OneShot
from caseexec.servers import PostgreSQL
from project.settings import *  # noqa: F403

_PRODUCTION = {"ENGINE": "django.db.backends.postgresql", "HOST": "db.example.com", "USER": "shop"}
DATABASES = {
    "default": {**_PRODUCTION, "NAME": "shop", "TEST": {"NAME": "test_shop"}},
    "archive": {**_PRODUCTION, "NAME": "archive", "TEST": {"NAME": "test_archive"}},
}

TEST_RUNNER = "caseexec.django.ServicesRunner"
CASEEXEC_SERVICES = {
    "default": PostgreSQL(),
    "dump": OneShot(
        "psql --quiet --set ON_ERROR_STOP=1 --file suppliers.sql template1",
        env={
            "PGHOST": "{default.host}",
            "PGPORT": "{default.port}",
            "PGUSER": "{default.user}",
            "PGPASSWORD": "{default.password}",
        },
        cwd=BASE_DIR,  # noqa: F405
    ),
}
CASEEXEC_SETTINGS = {
    "DATABASES.archive.HOST": "{default.host}",
    "DATABASES.archive.PORT": "{default.port}",
    "DATABASES.archive.USER": "{default.user}",
    "DATABASES.archive.PASSWORD": "{default.password}",
}
