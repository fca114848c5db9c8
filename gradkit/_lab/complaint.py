"""The one error a user of the command line can mend."""


class Complaint(ValueError):
    """One line: what is wrong with what was asked for, and what to do."""
