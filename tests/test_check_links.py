"""The check of the built pages: what is whole passes, and each kind of fault is named."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "check_links.py"
GOOD = (
    '<h1 id="top-of-it">A</h1><a href="#top-of-it">up</a><a href="b%20c.html#the%20end">on</a><img src="d.png">'
    '<img src="data:image/png;base64,AA">'
)


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "index.html").write_text(GOOD + '<a href="https://example.org/x">out</a>')
    (tmp_path / "b c.html").write_text(
        '<a name="the end">B</a><link rel="canonical" href="https://example.org/b.html">'
    )
    (tmp_path / "d.png").write_bytes(b"")
    (tmp_path / "style.css").write_text("a { background: url(data:image/png;base64,AA) }")
    return tmp_path


def faults(folder):
    specification = importlib.util.spec_from_file_location("check_links", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return [fault.partition(": ")[2] for fault in module.find_faults(folder)]


def test_good_pages_have_no_faults(pages):
    assert faults(pages) == []


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="missing.html">gone</a>', "no file missing.html"),
        ('<img src="missing.png">', "no file missing.png"),
        ('<a href="index.html#nowhere">gone</a>', "no anchor index.html#nowhere"),
        ('<a href="#nowhere">gone</a>', "no anchor #nowhere"),
        ('<script src="https://example.org/x.js"></script>', "loads https://example.org/x.js"),
        ('<video><source src="https://example.org/x.mp4"></video>', "loads https://example.org/x.mp4"),
        ('<iframe src="https://example.org/x.html"></iframe>', "loads https://example.org/x.html"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "loads //example.org/x.css"),
        ('<img src="d.png" srcset="https://example.org/d.png 2x">', "loads https://example.org/d.png"),
    ],
)
def test_faults_are_named(pages, html, fault):
    (pages / "other.html").write_text(html)
    assert faults(pages) == [fault]


@pytest.mark.parametrize("rule", ["@import 'https://example.org/x.css';", "a { background: url(//example.org/x.png) }"])
def test_style_sheets_load_nothing_from_elsewhere(pages, rule):
    (pages / "style.css").write_text(rule)
    (fault,) = faults(pages)
    assert fault.startswith("loads ")
    assert "//example.org/x" in fault


def test_the_command_says_how_many_and_fails(pages, tmp_path):
    def run(folder):
        return subprocess.run([sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, check=False)

    assert run(pages).returncode == 0
    (pages / "index.html").write_text('<a href="missing.html">gone</a>')
    found = run(pages)
    assert found.returncode == 1
    assert f"1 faults in the pages of {pages.name}" in found.stdout
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty").returncode == 1
