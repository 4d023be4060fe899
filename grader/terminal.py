"""What a service says, as it is shown on a terminal."""


def one_line(text: object) -> str:
    """The text of an answer or an error. Each character that is not printed is escaped: a service
    must not turn its FAIL into a PASS on the screen of whoever grades it."""
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in str(text)])
