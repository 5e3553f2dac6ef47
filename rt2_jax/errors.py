"""The one exception that is a user's to mend; everything else is a defect of ours."""


class UserError(Exception):
    """A mistake the user can mend: one line that names the value, the limit and the mend.

    ``rt2`` prints it without a traceback and exits with code 2.
    """
