"""The feed keeps to its OpenAPI description, whatever is asked (schemathesis, in process)."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.eau.samples import AN_INSURER, an_id, eau
from tests.eau.test_feed import Fill, app, benefits, clock, fill, journal, mails, running, signer, switch, vault

from schleuse.eau.feed_client import Signature

__all__ = ["app", "benefits", "clock", "fill", "journal", "mails", "running", "signer", "switch", "vault"]  # fixtures

EXAMPLES = 30

schemathesis.checks.load_all_checks()
CHECKS = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
    )
]


@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/{ik}/eau", "GET"),
        ("/v1/{ik}/eau/ack", "POST"),
        ("/v1/{ik}/eau/{document_id}", "GET"),
        ("/v1/{ik}/paper/{reference}", "PUT"),
        ("/v1/{ik}/paper", "GET"),
    ],
)
def test_every_answer_is_one_that_the_description_promises(
    app: FastAPI, fill: Fill, benefits: Signature, path: str, method: str, mode: Any
) -> None:
    fill(eau(1), eau(2))
    operation = schemathesis.openapi.from_asgi("/v1/openapi.json", app)[path][method]

    @given(operation.as_strategy(generation_mode=mode), st.booleans())
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(case: Any, known: bool) -> None:
        if known:  # else nearly every request would end at the first look at its IK
            case.path_parameters["ik"] = AN_INSURER.value
            if "document_id" in case.path_parameters and mode is schemathesis.GenerationMode.POSITIVE:
                case.path_parameters["document_id"] = an_id(1).value
        token = benefits.token(AN_INSURER, case.method, unquote(case.formatted_path))
        answer = case.call(headers={"Authorization": f"Bearer {token}"})
        case.validate_response(answer, checks=CHECKS)

    check()
