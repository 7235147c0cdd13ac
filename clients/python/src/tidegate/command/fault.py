"""What the command can't do."""


class Fault(Exception):
    """The text says what to do. `code` is the exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code
