"""A guard: SQL that is an error where its condition does not hold."""

import pymysql
import pytest

from chalicelib.db.errors import is_guard_failed
from chalicelib.db.mysql.connection import as_database_error
from chalicelib.db.statements import guarded
from tests.support.witness import Witness

VALUES = ["7", "0", "-7", "CAST(7 AS UNSIGNED)", "LAST_INSERT_ID()", "18446744073709551615"]


@pytest.mark.parametrize("value", VALUES)
def test_a_guarded_value_is_the_value_where_the_condition_holds(
    witness: Witness, value: str
) -> None:
    assert witness.query(f"SELECT {guarded(value, '1 = 1')}") == witness.query(f"SELECT {value}")


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("condition", ["1 = 2", "NULL", "1 = (SELECT id FROM heroes WHERE id = 0)"])
def test_it_is_an_error_where_the_condition_is_false_or_null(
    witness: Witness, value: str, condition: str
) -> None:
    with pytest.raises(pymysql.MySQLError) as failed:
        witness.query(f"SELECT {guarded(value, condition)}")
    assert is_guard_failed(as_database_error(failed.value))
