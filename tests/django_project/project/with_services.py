"""The settings for a run whose runner starts the services."""

import sys

from caseexec import OutputService
from caseexec.servers import PostgreSQL, Redis
from project.settings import *  # noqa: F403

TEST_RUNNER = "caseexec.django.ServicesRunner"
CASEEXEC_SERVICES = {
    "default": PostgreSQL(),
    "redis": Redis(),
    "worker": OutputService(
        [sys.executable, "-m", "celery", "-A", "project", "worker", "--pool", "solo", "--loglevel", "INFO",
         "--without-gossip", "--without-mingle", "--without-heartbeat"],
        banner="celery@.* ready",
        env={"CELERY_BROKER_URL": "{redis.url}"},
    ),
}  # fmt: skip
CASEEXEC_SETTINGS = {
    "CACHES.default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "{redis.address}"},
    "CACHES.default.LOCATION": "redis://{redis.address}/1",
    "CELERY_BROKER_URL": "{redis.url}",
    "CELERY_RESULT_BACKEND": "{redis.url}",
}
