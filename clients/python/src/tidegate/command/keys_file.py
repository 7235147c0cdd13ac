"""The keys file of services (TIDEGATE_API_KEYS_FILE): `[[key]]` entries, kept with the comments around them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

from tidegate.command.fault import Fault


class KeysFile:
    """One keys file. Services read it again when it changes, so each change takes its place as a whole."""

    def __init__(self, path: Path) -> None:
        if path.suffix == ".json":
            raise Fault(f"{path}: only TOML is written here; name a file that ends in .toml", 2)
        self._path = path.resolve()  # a link stays a link: what it leads to is replaced
        self._document = tomlkit.document()

    @contextlib.contextmanager
    def opened(self, *, to_change: bool = False) -> Iterator[AoT]:
        """Its entries; with `to_change`, what is done to them is written at the end of the block. Raises Fault."""
        with self._locked() if to_change else contextlib.nullcontext():
            entries = self._entries()
            yield entries
            if to_change:
                self._write()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two that add a key at once would lose one. The folder is locked, since the file itself is replaced."""
        try:
            folder = os.open(self._path.parent, os.O_RDONLY)
        except OSError as error:
            raise Fault(f"{self._path.parent} can't be opened: {error.strerror}") from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _entries(self) -> AoT:
        try:
            self._document = tomlkit.parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._document.add(tomlkit.comment("Keys of services. Each is known by its hash alone."))
        except OSError as error:
            raise Fault(f"{self._path} can't be read: {error.strerror}") from None
        except (TOMLKitError, UnicodeDecodeError) as error:
            raise Fault(f"{self._path} is no TOML: {error}") from None
        found = self._document.get("key")
        if found == []:  # by hand: no [[key]] may follow it
            self._document.remove("key")
            found = None
        if found is None:
            found = self._document["key"] = tomlkit.aot()
        if not isinstance(found, AoT):
            raise Fault(f"{self._path}: keys are tables that begin with [[key]]")
        return found

    def _write(self) -> None:
        if not self._document["key"]:  # it would be written as `key = []`, which no [[key]] may follow
            self._document.remove("key")
        try:
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self._path.parent, delete=False) as made:
                try:
                    made.write(tomlkit.dumps(self._document).rstrip("\n") + "\n")
                    made.flush()
                    self._own(made.fileno())
                    os.fsync(made.fileno())
                    os.replace(made.name, self._path)
                except BaseException:
                    os.unlink(made.name)
                    raise
        except OSError as error:
            raise Fault(f"{self._path} can't be written: {error.strerror}") from None

    def _own(self, made: int) -> None:
        """Gives the file in place of the old one to the same user: a service that runs as another has to read it."""
        with contextlib.suppress(FileNotFoundError):  # a new one is its maker's alone
            old = self._path.stat()
            os.fchmod(made, old.st_mode & 0o777)
            if (old.st_uid, old.st_gid) != (os.getuid(), os.getgid()):
                os.fchown(made, old.st_uid, old.st_gid)


def entry(facts: Mapping[str, Any]) -> Table:
    """One `[[key]]`, in the order of `facts`."""
    table = tomlkit.table()
    table.trivia.indent = "\n"  # a blank line before it
    for name, value in facts.items():
        if isinstance(value, Mapping):
            inline = tomlkit.inline_table()
            inline.update(value)
            value = inline
        table.add(name, value)
    return table
