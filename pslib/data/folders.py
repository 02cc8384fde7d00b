"""The folder of a set that pslib writes: whose it is, what of it may be removed, and who writes into it now.

Real sets have the same layout and stand where people put them, so a folder is cleared only if it says that pslib wrote
it, and then only of the files that pslib writes: whatever else lies there stays.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pslib.data.layouts import write_bytes
from pslib.data.manifest import read_manifest
from pslib.errors import UnreadableError, UserError
from pslib.progress import say

__all__ = ["IMAGES", "clear_for", "count_images", "writing"]

IMAGES = {"cuhk-sysu": "Image/SSM", "prw": "frames"}
_IMAGE_NAMES = {"cuhk-sysu": "s[0-9]*.jpg", "prw": "c[0-9]*s[0-9]*_[0-9]*.jpg"}
_FILES = {
    "cuhk-sysu": (
        "annotation/Images.mat", "annotation/Person.mat", "annotation/pool.mat", "annotation/test/train_test/Train.mat",
        "annotation/test/train_test/TestG[0-9]*.mat", "annotation/test/subset/Occlusion.mat",
        "annotation/test/subset/Resolution.mat",
    ),
    "prw": (
        "annotations/c[0-9]*s[0-9]*_[0-9]*.jpg.mat", "query_box/[0-9]*_c[0-9]*s[0-9]*_[0-9]*.jpg", "query_info.txt",
        "frame_train.mat", "frame_test.mat", "ID_train.mat", "ID_test.mat",
    ),
}  # fmt: skip
_WORK = ".drawing"  # batches that are done, until all are


@contextmanager
def writing(root: Path, name: str) -> Iterator[None]:
    """The right to write the set ``name`` into ``root``, which one process has at a time; the others wait and say so.

    Who waited must look again: the set may be finished.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root.with_name(f"{root.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process writes {name}: waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def count_images(root: Path, kind: str) -> int:
    """How many images of the names that pslib gives lie in a set's folder."""
    return sum(1 for _ in (root / IMAGES[kind]).glob(_IMAGE_NAMES[kind]))


def clear_for(root: Path, name: str, mark: str, plan: str) -> None:
    """Make ``root`` ready to be written by ``plan``: what another plan left goes, a half-drawn set of this one stays.

    Args:
        name: the set, "prw-val" or the like.
        mark: what only the manifest of this kind of set has: "plan" of a drawn one, "settings" of a thin one.
        plan: names what is to be written, and nothing else.

    Raises:
        UserError: the folder holds files and neither a half-drawn set nor a manifest of ``name`` with that mark.
    """
    begun = root / _WORK / "plan"
    if root.exists() and any(root.iterdir()) and not begun.is_file() and not _is_ours(root, name, mark):
        raise UserError(
            f"{root} holds files that pslib did not draw: move them away, or give another folder with --out."
        )
    if not (begun.is_file() and begun.read_text() == plan):
        _remove(root, name.removesuffix("-val"))
        begun.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(begun, plan.encode())


def _is_ours(root: Path, name: str, mark: str) -> bool:
    try:
        manifest = read_manifest(root) or {}
    except UnreadableError:
        raise
    except UserError:  # who wrote a damaged one cannot be known
        return False
    return manifest.get("set") == name and bool(manifest.get(mark))


def _remove(root: Path, kind: str) -> None:
    """Remove the files that pslib writes for a set of this layout, the manifest first, and the folders left empty."""
    images = f"{IMAGES[kind]}/{_IMAGE_NAMES[kind]}"
    for pattern in ("manifest.json", f"{_WORK}/*", images, *_FILES[kind]):
        for path in [*root.glob(pattern), *root.glob(f"{pattern}.part")]:
            if path.is_file():
                path.unlink()
    folders = {parent for pattern in (images, f"{_WORK}/*", *_FILES[kind]) for parent in Path(pattern).parents}
    for folder in sorted(folders - {Path()}, key=lambda folder: -len(folder.parts)):
        if (root / folder).is_dir() and not any((root / folder).iterdir()):
            (root / folder).rmdir()
