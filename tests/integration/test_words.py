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


class RunnersTests(RunCase):
    def assert_told(
        self, *runner: str, base: str = "unittest.TestCase", imports: str = "", module: str = "test_it"
    ) -> None:
        self.write("server.py", SERVER)
        self.write(f"{module}.py", SUITE.format(base=base, imports=imports))
        code, output = self.run_python(*runner)
        self.assertNotEqual(code, 0, output)
        told = masked(output)
        # pytest begins each of these lines with an E.
        lines = [line.removeprefix("E").strip() for line in told.splitlines()]
        for word in ("failure", "error", "subtest"):
            self.assertEqual(lines.count(f"was told {word}"), 1, output)
        self.assertEqual(lines.count("What its services wrote during this test:"), 3, output)
        self.assertEqual(lines.count("shop (LOG):"), 3, output)
        self.assertNotIn("was told nothing to see", told)

    def test_unittest(self) -> None:
        self.assert_told("-m", "unittest", "test_it")

    def test_asynchronous_classes(self) -> None:
        self.assert_told("-m", "unittest", "test_it", base="unittest.IsolatedAsyncioTestCase")

    @unittest.skipUnless(find_spec("pytest"), "pip install pytest")
    def test_pytest(self) -> None:
        self.assert_told("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")

    @unittest.skipUnless(find_spec("xdist"), "pip install pytest-xdist")
    def test_xdist(self) -> None:
        self.assert_told("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "test_it.py")

    @unittest.skipUnless(find_spec("django"), "pip install django")
    def test_django(self) -> None:
        self.write("site_settings.py", """
            DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        """)  # fmt: skip
        self.environment["DJANGO_SETTINGS_MODULE"] = "site_settings"
        self.assert_told("-m", "django", "test", "-v0", base="django.test.TestCase", imports="import django.test")
