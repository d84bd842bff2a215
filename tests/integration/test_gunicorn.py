import os
import signal
import unittest
import urllib.request
from typing import ClassVar

import psutil

from caseexec import HTTPServiceMixin, OutputServiceMixin, ProcessFinishedWithError
from tests.helpers.leaks import soon
from tests.integration.servers import require

HERE = os.path.dirname(__file__)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def alive(processes):
    # A killed orphan may stay a zombie where nobody collects it: a container without an init.
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@require(client="gunicorn")
class GunicornTests(HTTPServiceMixin, unittest.TestCase):
    service_command = "{python} -m gunicorn --workers 2 --bind {address} gunicorn_app:application"
    service_cwd = HERE
    # Its control socket would be shared by all that this user runs.
    service_env: ClassVar = {"GREETING": "hello from {address}", "XDG_RUNTIME_DIR": "{tmp}"}

    def test_it_answers_with_what_the_environment_says(self):
        self.assertIn(f"hello from {self.service.address}", get(self.service.url))

    def test_a_worker_of_the_service_answers(self):
        worker, master, *_ = get(self.service.url).split()
        self.assertEqual(int(master), self.service.pid)
        self.assertIn(int(worker), self.service.living())

    def test_its_workers_die_with_it(self):
        workers = self.workers()
        with self.service.stopped():
            self.assertEqual(alive(workers), [])
        self.assertIn("hello", get(self.service.url))

    def test_its_workers_die_with_it_when_it_is_killed(self):
        workers = self.workers()
        self.service.kill()
        self.assertEqual(alive(workers), [])
        self.service.start()
        self.assertIn("hello", get(self.service.url))

    def test_its_workers_die_also_when_somebody_else_has_killed_their_master(self):
        workers = self.workers()
        os.kill(self.service.pid, signal.SIGKILL)
        with self.assertRaisesRegex(ProcessFinishedWithError, "was killed by SIGKILL"):
            self.service.stop()
        self.assertEqual(alive(workers), [])
        self.service.start()

    def workers(self):
        # One that is just being loaded may not hear a signal.
        self.assertTrue(soon(lambda: self.service.tail().count("the application is loaded") == 2))
        found = psutil.Process(self.service.pid).children(recursive=True)
        self.assertEqual(len(found), 2)
        return found


@require(client="gunicorn")
class GunicornByItsBannerTests(OutputServiceMixin, unittest.TestCase):
    service_command = "{python} -m gunicorn --bind {address} gunicorn_app:application"
    service_banner = r"Listening at: http://{address}\b"
    service_cwd = HERE
    service_env: ClassVar = {"XDG_RUNTIME_DIR": "{tmp}"}

    def test_it_answers(self):
        self.assertEqual(int(get(f"http://{self.service.address}").split()[1]), self.service.pid)

    def test_its_output_can_be_read(self):
        self.assertIn("Starting gunicorn", self.service.tail())

    def test_it_answers_again_after_a_restart(self):
        with self.service.stopped():
            pass
        self.assertTrue(get(f"http://{self.service.address}"))
