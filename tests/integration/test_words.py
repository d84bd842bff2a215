"""What a failing test tells of its services, under each runner as its user sees it."""

import unittest
from importlib.util import find_spec

from tests.helpers.classes import masked
from tests.helpers.runs import RunCase

SUITE = """
    import socket, unittest
    from caseexec import OutputService, ServicesMixin
    {imports}

    class ShopTests(ServicesMixin, {base}):
        shop = OutputService("{{python}} -u server.py", banner="ready", port_pattern=r"^port (\\d+)$")

        def tell(self, word):
            mark = self.shop.output_mark()
            with socket.create_connection(("127.0.0.1", self.shop.port)) as client:
                client.sendall(word.encode())
            self.shop.wait_for_output("was told " + word + "\\n", since=mark)

        def test_failure(self):
            self.tell("failure")
            self.fail("no")

        def test_error(self):
            self.tell("error")
            raise KeyError("no")

        def test_subtest(self):
            with self.subTest("one"):
                self.tell("subtest")
                self.fail("no")

        def test_that_passes(self):
            self.tell("nothing to see")
"""


SERVER = """
    import socket
    print("ready")
    server = socket.create_server(("127.0.0.1", 0))
    print("port", server.getsockname()[1])
    while True:
        with server.accept()[0] as client:
            print("was told", client.recv(100).decode())
"""


PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", "-p")


NOTE = ("What its services wrote during this test:", "shop (LOG):")
# In its place, with our plugin.
SECTION = ("- Captured output of shop (server.py), LOG -",)


class RunnersTests(RunCase):
    def assert_told(
        self, *runner: str, base: str = "unittest.TestCase", imports: str = "", told_in: tuple[str, ...] = NOTE
    ) -> None:
        self.write("server.py", SERVER)
        self.write("test_it.py", SUITE.format(base=base, imports=imports))
        code, output = self.run_python(*runner)
        self.assertNotEqual(code, 0, output)
        told = masked(output)
        # pytest begins each of these lines with an E.
        lines = [line.removeprefix("E").strip() for line in told.splitlines()]
        for word in ("failure", "error", "subtest"):
            self.assertEqual(lines.count(f"was told {word}"), 1, output)
        for line in (*NOTE, *SECTION):
            self.assertEqual(lines.count(line), 3 if line in told_in else 0, output)
        self.assertNotIn("was told nothing to see", told)

    def test_unittest(self) -> None:
        self.assert_told("-m", "unittest", "test_it")

    def test_asynchronous_classes(self) -> None:
        self.assert_told("-m", "unittest", "test_it", base="unittest.IsolatedAsyncioTestCase")

    @unittest.skipUnless(find_spec("pytest"), "pip install pytest")
    def test_pytest(self) -> None:
        self.assert_told(*PYTEST, "no:caseexec")

    @unittest.skipUnless(find_spec("xdist"), "pip install pytest-xdist")
    def test_xdist(self) -> None:
        self.assert_told(*PYTEST, "no:caseexec", "-n", "2")

    @unittest.skipUnless(find_spec("xdist"), "pip install pytest-xdist")
    def test_pytest_and_xdist_with_our_plugin(self) -> None:
        self.environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        for further in ((), ("-p", "xdist", "-n", "2")):
            with self.subTest(further):
                self.assert_told(*PYTEST, "caseexec.pytest_plugin", *further, told_in=SECTION)

    @unittest.skipUnless(find_spec("django"), "pip install django")
    def test_django(self) -> None:
        self.write("site_settings.py", """
            DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        """)  # fmt: skip
        self.environment["DJANGO_SETTINGS_MODULE"] = "site_settings"
        self.assert_told("-m", "django", "test", "-v0", base="django.test.TestCase", imports="import django.test")
