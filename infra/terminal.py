"""What the commands print and ask, and the error that ends them."""


class Refused(Exception):
    """A command cannot go on. The text says what is wrong, where, and what to do."""


def say(subject: str, text: str) -> None:
    """Prints one line of what was done."""
    print(f"{subject:<12} {text}", flush=True)


def confirm(question: str, answer: str, otherwise: str = "nothing was changed") -> None:
    """Asks. Raises Refused unless `answer` is typed; `otherwise` ends its text."""
    try:
        given = input(f"{question}\nType {answer} to go on: ")
    except EOFError:
        given = ""
    if given.strip() != answer:
        raise Refused(f"{answer!r} was not typed: {otherwise}")
