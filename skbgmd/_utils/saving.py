"""Atomic writes: files are replaced as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(targets: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Write files under temporary names, and rename them once all are written; the old ones last until then.

    Parameters
    ----------
    targets : mapping of str to path, file-like object or None
        Targets to write to. A target that can't be replaced (a device, a pipe, a file in a read-only folder) stays as
        it is.

    Yields
    ------
    dict
        The same keys, with targets to write to instead.

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
        # Torch raises RuntimeErrors, which don't always name the file.
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
    # Links are followed to the file to replace. The name is the same each time, so that no litter gathers.
    path = Path(os.path.realpath(target))
    return path.with_name(f"{path.name}.part"), path


def _replace(part: Path, target: Path) -> None:
    with part.open("rb+") as file:
        # Without it, a power cut could leave an empty file under the new name.
        os.fsync(file.fileno())
    part.replace(target)
