"""The one kind of error that is the user's to fix."""


class EarTeachError(Exception):
    """A problem that the user can fix.

    The message is one line that says what was found, where, and what to do next. The command line
    prints it as `error: …` and exits with 1; every other exception is a bug and keeps its traceback.
    """
