"""The code that docs/security.md shows is the example's own, which is run by tests."""

import re
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(r"^```(python|js)\n(.*?)^```", (ROOT / "docs/security.md").read_text(), re.MULTILINE | re.DOTALL)


def _flat(text: str) -> str:
    """`text` without indentation."""
    return "".join(dedent(line) for line in text.splitlines(keepends=True))


EXAMPLE = {
    suffix: "".join(_flat(file.read_text()) for file in (ROOT / "examples/login").glob(f"*.{suffix}"))
    for suffix in ("py", "js")
}


def test_there_is_code_to_look_for() -> None:
    assert [language for language, _ in BLOCKS].count("python") >= 2
    assert [language for language, _ in BLOCKS].count("js") >= 3


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=[str(number) for number in range(len(BLOCKS))])
def test_each_block_is_in_the_example(language: str, block: str) -> None:
    assert _flat(block).strip() in EXAMPLE["py" if language == "python" else "js"]
