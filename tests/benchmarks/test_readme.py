"""README.md says what the result files say."""

import contextlib
import re

import pytest

from benchmarks import readme, report
from benchmarks.__main__ import main

STALE = "# Title\n\n<!-- n:begin -->\nold\n<!-- n:end -->\n\nend\n"


def test_readme_agrees_with_the_committed_results():
    text = readme.README.read_text("utf-8")
    for name in readme.BLOCKS:
        assert f"<!-- {name}:begin -->" in text
    assert readme.fill(text, readme.BLOCKS) == text, "run `python -m benchmarks readme`"


def test_pictures_of_the_readme_are_there():
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme.README.read_text("utf-8"))
    assert len(links) >= 5
    for link in links:
        assert (readme.ROOT / link).is_file(), link


def test_the_committed_report_is_that_of_the_committed_records(tmp_path):
    folder = readme.RESULTS / "comparison"
    committed = readme.ROOT / folder / "report"
    with contextlib.chdir(readme.ROOT):  # the report names the folder as it was given
        written = {path.name: path for path in report.write_report(folder, tmp_path)}
    assert written.keys() == {path.name for path in committed.iterdir()}
    for name in ("report.md", "table-1.csv", "table-2.csv", "full.csv"):
        assert (committed / name).read_text("utf-8") == written[name].read_text("utf-8"), (
            f"run `python -m benchmarks report {folder.as_posix()}`"
        )


def test_fill_replaces_the_block_and_nothing_else():
    filled = readme.fill(STALE, {"n": lambda: "new\n"})
    assert filled == STALE.replace("old", "new")
    assert readme.fill(filled, {"n": lambda: "new\n"}) == filled


def test_numbers_with_backslashes_are_text():
    assert r"\1" in readme.fill(STALE, {"n": lambda: r"\1"})


def test_blocks_that_are_not_there_are_not_made():
    assert readme.fill("no block", {"n": lambda: 1 / 0}) == "no block"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STALE.replace("n:", "m:"), "Nothing fills the block 'm'; there are \\['n'\\]"),
        (STALE.replace("<!-- n:end -->", ""), "<!-- n:begin --> stands alone"),
        (STALE.replace("<!-- n:begin -->", ""), "<!-- n:end --> stands alone"),
    ],
)
def test_wrong_markers(text, message):
    with pytest.raises(ValueError, match=message):
        readme.fill(text, {"n": lambda: "new"})


def test_check_fails_until_filled(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(readme.BLOCKS, "n", lambda: "new")
    path = tmp_path / "README.md"
    path.write_text(STALE)
    assert main(["readme", "--check", "--readme", str(path)]) == 1
    assert "differs" in capsys.readouterr().err
    assert path.read_text() == STALE
    assert main(["readme", "--readme", str(path)]) == 0
    assert main(["readme", "--check", "--readme", str(path)]) == 0
    assert path.read_text() == STALE.replace("old", "new")
