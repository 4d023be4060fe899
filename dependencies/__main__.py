"""`make lock`, `make update`, `make audit`, `make licences`."""

import sys

from dependencies import audit, licences, lock

WORDS = {
    "lock": lock.write,
    "update": lock.update,
    "audit": audit.run,
    "licences": licences.write,
}


def main(words: list[str]) -> int:
    if len(words) != 1 or words[0] not in WORDS:
        print(f"usage: python -m dependencies {'|'.join(WORDS)}", file=sys.stderr)
        return 2
    return WORDS[words[0]]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
