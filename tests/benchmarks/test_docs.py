"""The README and the user guide agree with the result files, and numbers come from nowhere else."""

import re
from pathlib import Path

import pytest

import benchmarks
from benchmarks import docs
from benchmarks.__main__ import main

STALE = "# Title\n\n<!-- n:begin -->\nold\n<!-- n:end -->\n\nend\n"
PAGES = docs.find_pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_agrees_with_the_committed_results(page):
    assert page.read_text("utf-8") == docs.fill_page(page), "run `python -m benchmarks docs`"


def test_every_block_is_in_a_page():
    text = "".join(page.read_text("utf-8") for page in PAGES)
    unused = {name for name in docs.BLOCKS if f"<!-- {name}:begin -->" not in text}
    assert unused <= {"costs"}


@pytest.mark.parametrize("name", docs.BLOCKS)
def test_pictures_of_blocks_are_there(name):
    block = docs.BLOCKS[name](docs.ROOT / docs.RESULTS)
    for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", block):
        assert (docs.ROOT / docs.RESULTS / link).is_file(), link


def test_pictures_are_linked_from_where_the_page_is(tmp_path, monkeypatch):
    monkeypatch.setitem(docs.BLOCKS, "n", lambda results: "![a](b.png) [c](d.md)")
    page = tmp_path / "deep" / "er" / "page.md"
    page.parent.mkdir(parents=True)
    page.write_text(STALE)
    assert "![a](../../results/b.png) [c](d.md)" in docs.fill_page(page, tmp_path / "results")


def test_fill_replaces_the_block_and_nothing_else():
    filled = docs.fill(STALE, {"n": lambda: "new \\1\n"})
    assert filled == STALE.replace("old", "new \\1")
    assert docs.fill(filled, {"n": lambda: "new \\1\n"}) == filled
    assert docs.fill("no block", {"n": lambda: 1 / 0}) == "no block"


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
        docs.fill(text, {"n": lambda: "new"})


def test_check_names_the_file_until_it_is_filled(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(docs.BLOCKS, "n", lambda results: "new")
    page = tmp_path / "page.md"
    page.write_text(STALE)
    assert main(["docs", "--check", "--pages", str(page)]) == 1
    assert f"{page} differs" in capsys.readouterr().err
    assert page.read_text() == STALE
    assert main(["docs", "--pages", str(page)]) == 0
    assert main(["docs", "--check", "--pages", str(page)]) == 0
    assert page.read_text() == STALE.replace("old", "new")


def test_benchmarks_import_private_names_in_one_module_only():
    folder = Path(benchmarks.__file__).parent
    private = {
        path.name
        for path in folder.rglob("*.py")
        if re.search(r"(from|import) skfp[\w.]*\._", path.read_text("utf-8"))
    }
    assert private == {"internals.py"}
