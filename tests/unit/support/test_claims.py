"""Numbers that one test process has for itself."""

import subprocess
import sys
from uuid import uuid4

from tests.support.claims import Claims

TAKE = "import sys; from tests.support.claims import Claims; print(Claims(sys.argv[1], range(2)).take(), flush=True)"


def test_a_number_is_given_once_among_all_processes_until_its_own_has_ended() -> None:
    name = uuid4().hex
    with subprocess.Popen([sys.executable, "-c", f"{TAKE}; input()", name], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        mine = Claims(name, range(2))
        assert mine.take() == 1 - theirs
        other.kill()
    assert mine.take() == theirs
