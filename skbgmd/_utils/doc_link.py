"""Links from the HTML displays of estimators to the pages of the documentation."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata


def documentation_url() -> str:
    """Look up the address of the documentation in the installed package's metadata; "" where there is none."""
    try:
        addresses = metadata("skbgmd").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    by_label: dict[str, str] = dict(address.split(", ", 1) for address in addresses)
    return by_label.get("Documentation", "").rstrip("/")


class DocumentationLink:
    """A mixin for classes of this library, whose HTML displays link to their pages, as scikit-learn's do."""

    _doc_link_module = "skbgmd"

    @property
    def _doc_link_template(self) -> str:
        url = documentation_url()
        return url and f"{url}/api/generated/{{page}}.html"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        name = type(self).__name__
        root = self._doc_link_module
        package = root if name in import_module(root).__all__ else ".".join(type(self).__module__.split(".")[:2])
        return {"page": f"{package}.{name}"}
