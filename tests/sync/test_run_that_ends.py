"""A run that ends between what it does and what it records. The next one must not take that for the
work of a client, and undo what was acknowledged since."""

import json

import pytest

from chalicelib.cache import generations
from chalicelib.sync import to_database
from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, ask, product, rows, run, watch
from tests.sync.test_faults import MAX_STEPS, Killed, Steps, each_moment, expire_lease, kill

each_form = pytest.mark.parametrize("form", ["json", "hash"])
each_way = pytest.mark.parametrize("keys", [[22], ["*"]], ids=["one row", "every row"])


@pytest.fixture
def steps(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def shown(cli: RedisCli, form: str) -> object:
    """The price under the public key; None where nothing is there."""
    row = cli.row("Product:22" if form == "json" else "UsingHash:Product:22")
    return row and int(row["Price"])


def stored(witness: Witness) -> object:
    found = rows(witness, 22)
    return found[0]["Price"] if found else None


def killed_at(steps: Steps, witness: Witness, step: int, when: str) -> bool:
    """Whether a run came to this step."""
    steps.at = {(steps.count + step, when): kill}
    try:
        run()
    except Killed:
        expire_lease(witness)
        return True
    steps.at = {}
    return False


@each_form
@each_way
@each_moment
@pytest.mark.parametrize("is_first", [True, False], ids=["first run", "later run"])
def test_what_the_service_has_written_since_stays(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    steps: Steps,
    keys: list[object],
    form: str,
    when: str,
    is_first: bool,
) -> None:
    """No client of Redis has done anything."""
    step = 0
    is_killed = True
    while is_killed and step < MAX_STEPS:
        step += 1
        witness.query("DELETE FROM watched")
        witness.query("DELETE FROM watched_ranges")
        cli("DEL", "Product:22", "UsingHash:Product:22")
        service.write([product(22, Price=1)], TABLE="products")
        watch(service, keys, FORM=form)
        if not is_first:
            run()
            service.write([product(22, Price=2)], TABLE="products")
        is_killed = killed_at(steps, witness, step, when)
        if step % 4:
            service.write([product(22, Price=3)], TABLE="products")
        else:
            service.delete([22], TABLE="products")
        run()
        price = 3 if step % 4 else None
        assert (step, stored(witness)) == (step, price)
        if price or not is_first or keys != ["*"]:  # else no run knows of the row
            assert (step, shown(cli, form)) == (step, price)
        assert witness.query("SELECT 1 FROM watched_ranges WHERE form LIKE '%+'") == []
        witness.query("DELETE FROM products")
    assert 10 < step < MAX_STEPS


@each_form
@each_moment
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "some columns"])
def test_what_followed_its_public_key_is_not_done_again(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    steps: Steps,
    form: str,
    when: str,
    is_whole: bool,
) -> None:
    """Not over what was written since. What a client does after that counts as ever."""
    followed = step = 0
    is_killed = True
    watch(service, [22], FORM=form)
    while is_killed and step < MAX_STEPS:
        step += 1
        service.write([product(22, Price=0)], TABLE="products")
        run()
        name = "Product:22" if form == "json" else "UsingHash:Product:22"
        changed = product(22, Price=step) if is_whole else {"Price": step}
        if form == "json":
            cli("SET", name, json.dumps(changed))
        else:
            cli("DEL", name)
            cli.redis.hset(name, mapping=changed)  # type: ignore[arg-type]
        is_killed = killed_at(steps, witness, step, when)
        if stored(witness) == step:
            followed += 1
            service.write([product(22, Price=1000)], TABLE="products")
            if step % 2:
                run()
                assert (step, stored(witness), shown(cli, form)) == (step, 1000, 1000)
            if form == "json":
                cli("SET", name, json.dumps({"Price": 2000}))
            else:
                cli("HSET", name, "Price", 2000)
            run()
            assert (step, stored(witness), shown(cli, form)) == (step, 2000, 2000)
    assert 10 < step < MAX_STEPS
    assert followed > 3


def test_many_rows_that_were_written_at_once_are_not_written_again(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(to_database, "MIN_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0.01)
    keys = range(20, 24)
    watch(service, ["*"])
    followed = 0
    for step in range(1, MAX_STEPS):
        service.write([product(key) for key in keys], TABLE="products")
        run()
        for key in keys:
            cli("SET", f"Product:{key}", json.dumps(product(key, Price=step)))
        is_killed = killed_at(steps, witness, step, "after")
        if stored(witness) == step:
            followed += 1
            service.write([product(key, Price=1000) for key in keys], TABLE="products")
            run()
            assert {row["Price"] for row in rows(witness, *keys)} == {1000}
        if not is_killed:
            break
    assert followed > 3


def test_increments_that_were_acknowledged_stay(
    shop: InProcess, witness: Witness, cli: RedisCli, steps: Steps
) -> None:
    watch(shop, [22])
    run()
    for step in range(1, MAX_STEPS):
        is_killed = killed_at(steps, witness, step, "after")
        for _ in range(2):
            item = {"ProductId": 22, "QuantityInStock": -1}
            assert ask(shop, "increment", SQLS=[item]).status == 200
        run()
        assert rows(witness, 22)[0]["QuantityInStock"] == 3000 - 2 * step
        if not is_killed:
            break
    assert step > 10
