"""The files of a folder and its subfolders, some of which may be links."""

from collections.abc import Iterator
import os


def walk(root: str) -> Iterator[tuple[str, list[str]]]:
  """Yields folders with the names of their files.

  Linked folders are followed, as data sets often consist of links to folders on
  other disks. Each folder comes once, and under its own name rather than a
  link's if it has both, so that links in a circle end. Hidden files and folders
  are left out.

  Args:
    root: Path of the first folder.

  Yields:
    Path of a folder, which begins with `root`, and the sorted names of its
    files. A subfolder that cannot be listed counts as a file.
  """
  seen = set()
  waiting = [root]
  while waiting:
    links = []
    for top in waiting:
      yield from _walk_own(top, seen, links)
    waiting = sorted(links)


def _walk_own(
  folder: str, seen: set[tuple[int, int]], links: list[str]
) -> Iterator[tuple[str, list[str]]]:
  """Yields the folders that are not links, and adds the others to `links`."""
  pending = [folder]
  while pending:
    folder = pending.pop()
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
      continue
    seen.add((status.st_dev, status.st_ino))
    names, folders = [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
      if entry.name.startswith('.'):
        continue
      # Not `entry.is_dir`, which fails at a link to itself.
      if not os.path.isdir(entry.path) or not os.access(
        entry.path, os.R_OK | os.X_OK
      ):
        names.append(entry.name)
      else:
        (links if entry.is_symlink() else folders).append(entry.path)
    yield folder, names
    pending += reversed(folders)
