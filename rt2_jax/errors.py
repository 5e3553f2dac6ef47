"""The one exception that is a user's to fix; everything else is a defect of ours."""


class UserError(Exception):
    """A mistake the user can fix: one line that names the value, the limit and the fix.

    ``rt2`` prints it without a traceback and exits with code 2.
    """


def first_line(error: BaseException, most: int = 200) -> str:
    """The start of an error's text, for a message of one line; its type's name where it has no text."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()[:most]
