"""Requests drawn from the OpenAPI document, right ones and wrong ones: none is answered by a fault of the server."""

from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig

# The document has about a dozen routes with bodies; each is asked so often.
FEW, MANY = 3, 200


def operations(address: str) -> list[Any]:
    both = GenerationConfig(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    config = SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=both)))
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", config=config)
    return [result.ok() for result in schema.get_all_operations()]


class Asked:
    """How many requests were sent, and which routes gave right answers."""

    def __init__(self, address: str, each: int) -> None:
        self.count = 0
        self.answered: set[str] = set()
        for operation in operations(address):
            right, wrong = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)
            drawn = given(case=right | wrong)(self._ask)
            settings(max_examples=each, deadline=None, database=None, suppress_health_check=list(HealthCheck))(drawn)()

    def _ask(self, case: Any) -> None:
        self.count += 1
        response = case.call(timeout=60)
        assert response.status_code < 500, f"{case.operation.label}: {response.text}"
        if response.status_code < 400:
            self.answered.add(case.operation.label)
        elif response.headers.get("Content-Type") == "application/json":
            error = response.json()["error"]
            assert "\n" not in (error if isinstance(error, str) else error["message"])


def test_a_few_requests_of_every_route(address: str, client: httpx2.Client) -> None:
    asked = Asked(address, FEW)
    assert asked.count >= 40
    assert {"GET /languages", "GET /v1/models", "GET /v1/runs", "GET /healthz"} <= asked.answered
    assert client.get("/readyz").status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_requests(address: str, client: httpx2.Client) -> None:
    assert Asked(address, MANY).count >= 2000
    assert client.get("/readyz").status_code == 200


def test_the_document_tells_of_every_interface(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    wanted = {
        "/translate", "/languages", "/detect", "/frontend/settings", "/v1/models", "/v1/completions",
        "/v1/chat/completions", "/v1/embeddings", "/v1/audio/transcriptions", "/v1/translate", "/v1/classify",
        "/v1/forecast", "/v1/attention", "/v1/fill", "/v1/runs", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    assert wanted <= set(paths)
    for path, methods in paths.items():
        for method, about in methods.items():
            assert about.get("description"), f"{method} {path} is not described"
            if method == "post":
                assert about["requestBody"]["content"], path
                assert "422" not in about["responses"], f"{path} never answers 422"
