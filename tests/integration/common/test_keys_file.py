"""The file of API keys changes while services run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.waiting import until
from tidegate_common.auth.keys_file import KeysFile
from tidegate_common.errors import Unauthenticated
from tidegate_common.runtime.tasks import end

OLD, NEW = f"tgk_shop_{'o' * 43}", f"tgk_shop_{'n' * 43}"


def content(*keys: str) -> str:
    digests = ", ".join(f'"{sha256(key.encode()).hexdigest()}"' for key in keys)
    return f'[[key]]\nid = "shop"\nsha256 = [{digests}]\n'


def good(file: KeysFile, key: str) -> bool:
    try:
        file.keys.principal(key)
    except Unauthenticated:
        return False
    return True


@asynccontextmanager
async def following(path: Path) -> AsyncIterator[KeysFile]:
    file = KeysFile(str(path), every_seconds=0.01)
    running = asyncio.create_task(file.run())
    try:
        yield file
    finally:
        await end([running])


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(text)
    other.rename(path)


def by_link(path: Path, text: str) -> None:
    """As Kubernetes does: the file is a link through `..data`, and that is turned to a new folder."""
    folder = path.parent / f"..{abs(hash(text))}"
    folder.mkdir()
    (folder / path.name).write_text(text)
    data, turned = path.parent / "..data", path.parent / "..data_tmp"
    turned.symlink_to(folder.name)
    turned.rename(data)
    if not path.is_symlink():
        path.unlink(missing_ok=True)
        path.symlink_to(Path("..data") / path.name)


@pytest.mark.parametrize("write", [in_place, by_rename, by_link])
async def test_a_changed_file_counts(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    path = tmp_path / "keys.toml"
    write(path, content(OLD))
    async with following(path) as file:
        assert (good(file, OLD), good(file, NEW)) == (True, False)
        write(path, content(OLD, NEW))
        await until(lambda: good(file, NEW), "the new key is good")
        assert good(file, OLD)
        write(path, content(NEW))
        await until(lambda: not good(file, OLD), "the old key is good no more")
        write(path, "")
        await until(lambda: not good(file, NEW), "no key is good")


@pytest.mark.parametrize("bad", ["[[key]]", "\x00", '[[key]]\nid = "shop"\nsha256 = "short"', None])
async def test_a_file_that_becomes_bad_changes_nothing(
    tmp_path: Path, bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def said(level: int) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == level]

    path = tmp_path / "keys.toml"
    path.write_text(content(OLD))
    async with following(path) as file:
        if bad is None:
            path.unlink()
        else:
            path.write_text(bad)
        await until(lambda: said(logging.WARNING), "the trouble is said")
        assert good(file, OLD)
        path.write_text(content(NEW))
        await until(lambda: good(file, NEW), "a good file counts again")
        assert not good(file, OLD)
        await until(lambda: any("good again" in line for line in said(logging.INFO)), "the end is said")
        assert len(said(logging.WARNING)) == 1


def test_a_file_that_is_half_written_does_not_count_yet(tmp_path: Path) -> None:
    """The beginning of a file can be a good file with fewer keys: those of the rest would lose their streams."""
    path = tmp_path / "keys.toml"
    path.write_text(content(OLD))
    file = KeysFile(str(path))
    for part in (b"", content(NEW).encode(), content(OLD, NEW).encode(), content(NEW).encode()):
        file.look(part)
        assert (good(file, OLD), good(file, NEW)) == (True, False)
    file.look(content(NEW).encode())
    assert (good(file, OLD), good(file, NEW)) == (False, True)


async def test_a_listener_that_breaks_keeps_nobody_from_knowing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(content(OLD))
    told: list[int] = []

    def broken(_: object) -> None:
        raise RuntimeError("broken")

    async with following(path) as file:
        file.keys.on_change += [broken, lambda changed: told.append(len(changed))]
        path.write_text(content(NEW))
        await until(lambda: good(file, NEW), "the new key is good")
        path.write_text(content(OLD, NEW))
        await until(lambda: good(file, OLD), "and it is followed on")
    assert told == [1, 1]
    assert "broken" in caplog.text
