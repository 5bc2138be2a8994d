"""Links to the documentation: those that the package's metadata names, to pages that there are."""

from __future__ import annotations

import importlib
import inspect
import re
from email.message import Message
from pathlib import Path

import pytest
from sklearn.utils import estimator_html_repr

from skbgmd import BlockGMDClassifier
from skbgmd._utils import doc_link
from skbgmd.aggregators import GeometricMedian, Krum

API = Path(__file__).resolve().parents[2] / "docs" / "api.rst"
URL = "https://docs.example/stable"


def faked(monkeypatch, *addresses):
    found = Message()
    for address in addresses:
        found["Project-URL"] = address
    monkeypatch.setattr(doc_link, "metadata", lambda name: found)


def documented():
    """Objects that have pages, by the names of these."""
    package, pages = "", {}
    for line in API.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\.\. currentmodule:: (\S+)", line):
            package = match[1]
        elif re.fullmatch(r"   [A-Za-z_]+", line) and package != "skbgmd.distributed.flower":
            # Entries of a toctree are no objects.
            pages[f"{package}.{line.strip()}"] = getattr(importlib.import_module(package), line.strip(), None)
    return pages


PAGES = {
    page: kind
    for page, kind in documented().items()
    if isinstance(kind, type) and issubclass(kind, doc_link.DocumentationLink) and not inspect.isabstract(kind)
}


@pytest.mark.parametrize("page", PAGES)
def test_the_link_leads_to_the_page(page, monkeypatch):
    faked(monkeypatch, "Source, https://elsewhere.example", f"Documentation, {URL}/")
    # Some have required parameters.
    blank = PAGES[page].__new__(PAGES[page])
    assert blank._get_doc_link() == f"{URL}/api/generated/{page}.html"


def test_there_are_pages_of_all_kinds():
    assert {"skbgmd.BlockGMDClassifier", "skbgmd.aggregators.Krum", "skbgmd.corruption.Simplex"} <= set(PAGES)
    assert len(PAGES) > 40


def test_without_an_address_there_is_no_link(monkeypatch):
    faked(monkeypatch, "Source, https://elsewhere.example")
    assert BlockGMDClassifier()._get_doc_link() == ""
    assert "https://elsewhere" not in estimator_html_repr(Krum())


def test_displays_show_it(monkeypatch):
    faked(monkeypatch, f"Documentation, {URL}")
    for shown in (BlockGMDClassifier(), GeometricMedian()):
        assert f"{URL}/api/generated/" in estimator_html_repr(shown)


def test_classes_of_others_have_none(monkeypatch):
    faked(monkeypatch, f"Documentation, {URL}")
    other = type("Other", (BlockGMDClassifier,), {"__module__": "elsewhere"})
    assert other()._get_doc_link() == ""
