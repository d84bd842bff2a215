"""A Django without a project, for the tests that run it in their own process."""

from tests.integration.servers import missing

try:
    import django
    from django.conf import settings
except ImportError:
    raise missing("django is not installed: pip install django") from None

# For all tests in this process, whoever of them is first. What one needs beside it, that one overrides.
if not settings.configured:
    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
    django.setup()
