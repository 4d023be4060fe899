"""Which web pages may use the service: Origin, CORS_ORIGINS, preflights."""

import json

import pytest

from bench.api_gateway_event import rest_event
from tests.conftest import Configure
from tests.support.client import Answer, InProcess, hero
from tests.support.witness import Witness

PAGE = "https://shop.example.com"
WRITE = json.dumps({"REQUEST": "write", "SQLS": [hero()]}).encode()
READ = json.dumps({"REQUEST": "read", "SQLS": [1]}).encode()


@pytest.fixture
def service(service: InProcess, configure: Configure) -> InProcess:
    configure(CORS_ORIGINS=f"{PAGE}, http://localhost:3000")
    return service


def seen_by_browser(answer: Answer) -> str | None:
    return answer.headers.get("access-control-allow-origin")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "http://shop.example.com",
        "https://shop.example.com:8443",
        "https://shop.example.com.evil.org",
        "http://localhost:3001",
        "null",
        "",
        "http://[",
        "*",
    ],
)
def test_a_page_of_another_origin_is_refused_and_writes_nothing(
    service: InProcess, witness: Witness, origin: str
) -> None:
    """A form of any page may be sent here without the browser asking first."""
    answer = service.ask("POST", "/", {"Origin": origin, "Content-Type": "text/plain"}, WRITE)

    assert (answer.status, answer.error) == (403, "Forbidden")
    assert answer.message.startswith(f"Origin: a page of {origin!r} may not use this service")
    assert "CORS_ORIGINS" in answer.message
    assert seen_by_browser(answer) is None
    assert witness.count() == 0


@pytest.mark.parametrize("path", ["/health", "/health?deep=1", "/health/deep"])
def test_a_page_of_another_origin_does_not_learn_the_health(service: InProcess, path: str) -> None:
    answer = service.ask("GET", path, {"Origin": "https://evil.example.com"})

    assert (answer.status, answer.error) == (403, "Forbidden")


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_an_allowed_page_may_read_every_answer(service: InProcess, origin: str) -> None:
    asked = [
        service.ask("POST", "/", {"Origin": origin}, WRITE),
        service.ask("POST", "/", {"Origin": origin}, READ),
        service.ask("POST", "/", {"Origin": origin}, b"no JSON"),
        service.ask("GET", "/health", {"Origin": origin}),
    ]

    assert [answer.status for answer in asked] == [200, 200, 400, 200]
    for answer in asked:
        assert seen_by_browser(answer) == origin
        assert answer.headers["vary"] == "Origin"
        assert "Cache-Status" in answer.headers["access-control-expose-headers"]


def test_a_preflight_of_an_allowed_page_gets_what_browsers_need(service: InProcess) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}

    answer = service.ask("OPTIONS", "/", {"Origin": PAGE, **asked})

    assert (answer.status, answer.content) == (204, b"")
    assert seen_by_browser(answer) == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert {"content-type", "idempotency-key", "x-api-key", "authorization"} <= set(allowed)
    assert "content-encoding" in allowed


@pytest.mark.parametrize("path", ["/", "/health", "/health/deep"])
def test_a_preflight_of_another_page_is_refused_with_words(service: InProcess, path: str) -> None:
    answer = service.ask("OPTIONS", path, {"Origin": "https://evil.example.com"})

    assert (answer.status, answer.error) == (403, "Forbidden")
    assert seen_by_browser(answer) is None


def test_without_the_setting_no_other_page_may(service: InProcess, configure: Configure) -> None:
    configure()

    assert service.ask("POST", "/", {"Origin": PAGE}, READ).status == 403


def test_any_page_may_where_the_setting_says_so(service: InProcess, configure: Configure) -> None:
    configure(CORS_ORIGINS="*")

    for origin in ("https://any.example.org", "null"):
        answer = service.ask("POST", "/", {"Origin": origin}, READ)
        assert (answer.status, seen_by_browser(answer)) == (200, origin)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("https://api.example.org", "api.example.org"),
        ("https://API.example.org", "api.example.org:443"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_page_of_the_services_own_host_needs_no_setting(
    service: InProcess, origin: str, host: str
) -> None:
    """`chalice local` speaks http only; API Gateway says which scheme it was asked by."""
    scheme, _, _ = origin.partition(":")
    forwarded = {} if scheme == "http" else {"X-Forwarded-Proto": scheme}
    answer = service.ask("POST", "/", {"Origin": origin, "Host": host, **forwarded}, READ)

    assert answer.status == 200
    assert seen_by_browser(answer) is None


@pytest.mark.parametrize(
    ("origin", "scheme"),
    [
        ("https://api.example.org", {}),
        ("https://api.example.org", {"X-Forwarded-Proto": "http"}),
        ("http://api.example.org", {"X-Forwarded-Proto": "https"}),
        ("ftp://api.example.org", {}),
        ("ftp://api.example.org", {"X-Forwarded-Proto": "ftp"}),
        ("//api.example.org", {"X-Forwarded-Proto": ""}),
    ],
)
def test_another_scheme_on_the_same_host_is_another_origin(
    service: InProcess, origin: str, scheme: dict[str, str]
) -> None:
    """Whoever sits between a reader and an http page writes that page."""
    answer = service.ask("POST", "/", {"Origin": origin, "Host": "api.example.org", **scheme}, READ)

    assert (answer.status, answer.error) == (403, "Forbidden")


def test_an_allowed_page_may_read_that_a_path_or_a_method_is_not_there(service: InProcess) -> None:
    for path, method, status in (("/rows", "POST", 404), ("/", "GET", 405)):
        for origin, seen in ((PAGE, PAGE), ("https://evil.example.com", None)):
            event = rest_event("{}")
            event["headers"]["origin"] = origin
            event["requestContext"] |= {"resourcePath": path, "httpMethod": method}
            answer = service.dispatch(event)

            assert (answer.status, seen_by_browser(answer)) == (status, seen)


def test_another_port_of_the_same_host_is_another_origin(service: InProcess) -> None:
    answer = service.ask(
        "POST", "/", {"Origin": "http://127.0.0.1:9", "Host": "127.0.0.1:8000"}, READ
    )

    assert answer.status == 403


def test_requests_without_an_origin_stay_as_they_are(service: InProcess) -> None:
    answer = service.ask("POST", "/", body=READ)

    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "text",
    [
        "shop.example.com",
        "https://shop.example.com/",
        "HTTPS://shop.example.com",
        "a b",
        "https://",
        "https://shop.example.com:",
        "https://shop.example.com:a",
        "https://a:b:1",
    ],
)
def test_a_malformed_setting_is_an_error_that_names_it(
    service: InProcess, configure: Configure, text: str
) -> None:
    configure(CORS_ORIGINS=text)

    answer = service.ask("POST", "/", body=READ)

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message.startswith("CORS_ORIGINS: expected origins such as")


@pytest.mark.parametrize("origin", ["https://shop.example.com:443", "http://shop.example.com:80"])
def test_a_default_port_in_the_setting_is_refused_because_no_browser_sends_it(
    service: InProcess, configure: Configure, origin: str
) -> None:
    configure(CORS_ORIGINS=origin)

    answer = service.ask("POST", "/", body=READ)

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message.endswith(f": write {origin.rpartition(':')[0]}")


@pytest.mark.parametrize(
    "origin", ["http://my_app:3000", "http://[::1]:3000", "https://a:80", "http://a:443"]
)
def test_a_setting_may_name_any_host_that_a_browser_sends(
    service: InProcess, configure: Configure, origin: str
) -> None:
    configure(CORS_ORIGINS=origin)

    assert seen_by_browser(service.ask("POST", "/", {"Origin": origin}, READ)) == origin


def test_who_is_no_page_needs_no_leave(service: InProcess, configure: Configure) -> None:
    """A program names no origin. Its answer says nothing of pages, whoever may use the service."""
    for origins in (PAGE, "*"):
        configure(CORS_ORIGINS=origins)
        answer = service.ask("POST", "/", {"Content-Type": "application/json"}, READ)

        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
