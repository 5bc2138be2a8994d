"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(targets: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give other names to files to write, and rename them once all are written; what was there lasts until then.

    Parameters
    ----------
    targets : mapping of str to path, file-like object or None
        What to write to. What isn't the path of a file that can be replaced (a device, a pipe, a file in a folder
        that is sealed) stays as it is.

    Yields
    ------
    dict
        With the same keys: what to write to instead.

    Raises
    ------
    OSError
        A file can't be written; it is named.
    """
    replaced = {name: _beside(target) for name, target in targets.items() if _is_replaceable(target)}
    try:
        yield {**targets, **{name: str(part) for name, (part, _) in replaced.items()}}
        for part, target in replaced.values():
            _replace(part, target)
    except (OSError, RuntimeError) as error:
        # Torch's errors of writing are RuntimeErrors, and don't always say what file it was.
        names = ", ".join(str(target) for target in targets.values() if target is not None)
        raise OSError(f"{names} can't be written: {error}") from error
    finally:
        for part, _ in replaced.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _is_replaceable(target: Any) -> bool:
    if not isinstance(target, (str, os.PathLike)):
        return False
    path = Path(os.path.realpath(target))
    return (path.is_file() or not path.exists()) and os.access(path.parent, os.W_OK)


def _beside(target: Any) -> tuple[Path, Path]:
    # Through links, for what they lead to is to be replaced. The same name each time, so that no litter gathers.
    path = Path(os.path.realpath(target))
    return path.with_name(f"{path.name}.part"), path


def _replace(part: Path, target: Path) -> None:
    with part.open("rb+") as file:
        # A new name for what a power cut would leave empty is no whole file.
        os.fsync(file.fileno())
    part.replace(target)
