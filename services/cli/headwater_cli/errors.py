"""What stops a command of the CLI: one sentence for the person at the terminal, and a way on."""


class Failure(Exception):
    """A command cannot go on. Shown as `message` and, on a line of its own, `hint`; the exit code is 1."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
