"""The one error a user is meant to read."""


class UserError(Exception):
    """Bad input: the message names the file, the value and the remedy.

    Entry scripts print the message alone and exit with status 2; anything else is a defect of
    ours and keeps its traceback.
    """
