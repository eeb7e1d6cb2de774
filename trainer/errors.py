"""The one error that the trainer raises for a mistake its user can put right."""


class TrainerError(Exception):
    """A sentence for the user that names the file or key at fault.

    The command line prints it without a traceback and exits with 65 (`EX_DATAERR`).
    """
