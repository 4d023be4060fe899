"""Rows that go through a run a thousand at a time: what is the same as with one row."""

from typing import Any

import pytest

from chalicelib import services
from chalicelib.tables import FORMS
from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, run, watch

# Each has its own way to be shown in JSON.
TEXTS = (
    *("plain", "", 'a "quote"', "back\\slash", "tab\tand\nline", "\x0b\x1f\x7f", "it's"),
    *("naïve", "日本", "\U0001f600", "\u2028", "a/b", "%s", "</script>", "\u00a0"),
)


@pytest.mark.parametrize("form", FORMS)
def test_public_keys_hold_what_a_read_answers_whatever_is_in_a_text(
    service: InProcess, witness: Witness, cli: RedisCli, form: str
) -> None:
    products = [product(n, Description=text) for n, text in enumerate(TEXTS, 1)]
    service.write(products, TABLE="products")
    watch(service, ["*"], "to_cache", FORM=form)

    assert run()["to_cache"] == {"looked": len(TEXTS), "changed": len(TEXTS), "reported": 0}

    answer = service.read([each["ProductId"] for each in products], TABLE="products")
    assert answer.rows == products
    if form == "json":
        names = [f"Product:{each['ProductId']}" for each in products]
        assert ",".join(text.decode() for text in cli("MGET", *names)) in answer.text
    else:
        shown = [cli.row(f"UsingHash:Product:{each['ProductId']}") for each in products]
        assert [each["Description"] for each in shown] == [*TEXTS]


def test_public_keys_that_are_there_already_do_not_keep_new_ones_waiting(
    shop: InProcess, cli: RedisCli
) -> None:
    cli("SET", "Product:22", "half a row")
    watch(shop, ["*"], "to_cache")

    assert run()["to_cache"] == {"looked": 2, "changed": 2, "reported": 0}
    assert [cli.row(f"Product:{key}")["ProductId"] for key in (11, 22)] == [11, 22]


@pytest.mark.parametrize("meanwhile", ["a client", "a delete"])
def test_a_run_leaves_alone_what_happens_before_it_sets_new_public_keys(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    watch(shop, ["*"], "to_cache")
    store = type(services.container().public_store)
    put = store.set_many

    def afterwards(*arguments: Any, **named: Any) -> Any:
        if meanwhile == "a client":
            cli("SET", "Product:22", "mine")
        else:
            shop.delete([22], TABLE="products")
        return put(*arguments, **named)

    monkeypatch.setattr(store, "set_many", afterwards)

    assert run()["to_cache"]["changed"] == 1

    assert cli.row("Product:11") == product(11)
    assert cli("GET", "Product:22") == (b"mine" if meanwhile == "a client" else None)
