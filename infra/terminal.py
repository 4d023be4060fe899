"""What the commands print and ask, and the error that ends them."""


class Refused(Exception):
    """A command cannot go on. The text says what is wrong, where, and what to do."""


def say(subject: str, text: str) -> None:
    """Prints one line of what was done."""
    print(f"{subject:<12} {printable(text)}", flush=True)


def printable(text: str) -> str:
    """The text for a terminal. Each character but a new line that is not printed is escaped: a
    caller's text in a log or in a row must not move the cursor, or look like another command's
    line."""
    return "".join(
        [each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text]
    )


def confirm(question: str, answer: str, otherwise: str = "nothing was changed") -> None:
    """Asks. Raises Refused unless `answer` is typed; `otherwise` ends its text."""
    try:
        given = input(f"{question}\nType {answer} to go on: ")
    except EOFError:
        given = ""
    if given.strip() != answer:
        raise Refused(f"{answer!r} was not typed: {otherwise}")
