"""Writes seed/triggers.sql from the declared tables: python -m seed.make_triggers"""

from pathlib import Path

from chalicelib.db import change_capture
from chalicelib.tables import TABLES

FILE = Path(__file__).parent / "triggers.sql"
HEAD = """\
-- Triggers that record what other clients of the database change, so that the service can tell its
-- cache. From the project's folder:
--
--     mysql -h HOST -u USER -p DATABASE < seed/triggers.sql
--
-- For MariaDB 10.6 and later, MySQL 8.0.29 and later, Aurora MySQL 3.05 and later. Applied again it
-- changes nothing. The table changed_entries is in seed/schema.sql. This file is written by
-- python -m seed.make_triggers, from the declarations in chalicelib/tables.py.

"""


def main() -> None:
    FILE.write_text(HEAD + change_capture.script(TABLES.values()), encoding="utf-8")


if __name__ == "__main__":
    main()
