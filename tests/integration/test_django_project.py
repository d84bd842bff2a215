"""A Django project, tests/django_project, whose tests are run as a user runs them: ``manage.py test``."""

import os
import re
import shutil

from tests.helpers import django_site  # noqa: F401  without Django there is nothing to do
from tests.helpers.runs import ROOT, RunCase
from tests.integration.servers import require

PROJECT = os.path.join(ROOT, "tests", "django_project")


class ProjectCase(RunCase):
    """Runs a copy of the project, in which settings can be added."""

    def setUp(self):
        super().setUp()
        self.project = shutil.copytree(
            PROJECT, self.path("project"), ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3")
        )

    def manage(self, *arguments, timeout=60):
        code, output = self.run_python(*self.manage_py(*arguments), timeout=timeout)
        self.output = output
        return code

    def manage_py(self, *arguments):
        return ["-X", "dev", "-c", MANAGE, self.project, *arguments]

    def assert_passes(self, *arguments, tests):
        self.assertEqual(self.manage("test", *arguments), 0, self.output)
        self.assertEqual(re.findall(r"Ran (\d+) tests?", self.output), [str(tests)], self.output)
        self.assertRegex(self.output, "(?m)^OK$")
        self.assertEqual(os.listdir(self.run_tmp), [])


# As "cd project; python manage.py".
MANAGE = "import os, runpy, sys; os.chdir(sys.argv.pop(1)); sys.path.insert(0, ''); runpy.run_path('manage.py', run_name='__main__')"


@require("redis-server", "redis-server", client="redis")
@require(client="celery")
@require(client="channels")
@require(client="daphne")
class ServicesOfClassesTests(ProjectCase):
    def test_each_class_brings_up_its_own(self):
        self.assert_passes("shop.tests.tests_services", tests=6)
