import unittest

from hypothesis import given
from hypothesis import strategies as st

from caseexec.placeholders import fill, fill_command, names, nearest, pattern_problem

VALUES = {"port": "5000", "tmp": "/tmp/a b", "host": "::1"}


class FillTests(unittest.TestCase):
    def test_names_in_braces_are_filled(self) -> None:
        self.assertEqual(fill("{host}:{port}/x", VALUES), "::1:5000/x")

    def test_braces_that_are_no_placeholder_pass_through(self) -> None:
        for text in ('{"a": {"b": 1}}', "{}", "{ port }", "{a,b}", "x{1..3}", "a{3}", "${port}", "${HOME}", "{"):
            with self.subTest(text):
                self.assertEqual(fill(text, VALUES), text)
                self.assertEqual(list(names(text)), [])

    def test_doubled_braces_stand_for_themselves(self) -> None:
        self.assertEqual(fill("awk {{print}} {{port}} {port}", VALUES), "awk {print} {port} 5000")

    def test_a_value_is_never_split(self) -> None:
        self.assertEqual(fill_command("run --dir {tmp} '{tmp}/x y'", VALUES, shell=False),
                         ["run", "--dir", "/tmp/a b", "/tmp/a b/x y"])  # fmt: skip

    def test_a_list_is_filled_item_by_item(self) -> None:
        self.assertEqual(fill_command(["run", "{tmp}", "{port}"], VALUES, shell=False), ["run", "/tmp/a b", "5000"])

    def test_for_a_shell_values_are_quoted(self) -> None:
        self.assertEqual(fill_command("run {tmp}/x {port} | cat", VALUES, shell=True), "run '/tmp/a b'/x 5000 | cat")

    def test_a_value_with_braces_is_not_filled_again(self) -> None:
        self.assertEqual(fill("{tmp}", {"tmp": "/{port}", "port": "1"}), "/{port}")

    def test_names_are_found_in_any_shape(self) -> None:
        self.assertEqual(list(names({"A": "{port}", "B": ["{tmp}", "x {redis.port}"]})), ["port", "tmp", "redis.port"])
        self.assertEqual(list(names(None)), [])

    @given(st.text(alphabet=st.characters(exclude_characters="{}")))
    def test_text_without_braces_is_never_changed(self, text: str) -> None:
        self.assertEqual(fill(text, VALUES), text)

    @given(st.text())
    def test_whatever_the_value_it_stays_one_argument(self, value: str) -> None:
        self.assertEqual(fill_command("run {tmp} end", {"tmp": value}, shell=False), ["run", value, "end"])


class HintTests(unittest.TestCase):
    def test_the_nearest_name_is_offered(self) -> None:
        self.assertEqual(nearest("prot", ["port", "host"]), "; did you mean port?")
        self.assertEqual(nearest("zzz", ["port", "host"]), "")

    def test_a_pattern_is_checked_with_its_placeholders_in(self) -> None:
        self.assertEqual(pattern_problem(r"listening on {address} a{3}"), "")
        self.assertIn("is no regular expression", pattern_problem("("))
