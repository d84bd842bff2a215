import json
import os
import pathlib

BASE_DIR = pathlib.Path(__file__).resolve().parent.parent

SECRET_KEY = "of no use"
ALLOWED_HOSTS = []
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles", "shop"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
STATIC_URL = "static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(BASE_DIR / "db.sqlite3"),
        # A file, so that other processes see it as well.
        "TEST": {"NAME": str(BASE_DIR / "test.sqlite3")},
    },
}
if "DATABASE" in os.environ:  # That of the tests, for a worker.
    DATABASES = {"default": json.loads(os.environ["DATABASE"])}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "TIMEOUT": 60}}
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "redis://localhost:1/0")
CELERY_RESULT_BACKEND = CELERY_BROKER_URL
