"""The API page, used as a person does: in a browser, filling in its form, against the local stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from playwright.sync_api import Locator, Page, expect

from local.api_caller import LocalCaller
from local.serving import in_background
from local.stack import ACCOUNT_ID, LocalStack, StackSettings
from tests.browser_page import Browser, Seen
from tests.fakes import secret


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    callers = {
        name.upper(): LocalCaller(name.upper(), f"{name}-secret/+=", f"arn:aws:iam::{ACCOUNT_ID}:role/{name}")
        for name in ("orders", "stranger")
    }
    key = secret(accountId="account-1", tenantId="tenant-a")
    settings = StackSettings(secrets={"imburse/sandbox/tenant-a": json.dumps(key)}, callers=callers, concurrency=2)
    with in_background(LocalStack(settings)) as running:
        yield running


@pytest.fixture
def seen(browser: Browser, stack: LocalStack) -> Iterator[Seen]:
    """The page, which reaches the stack and nothing else: no CDN, no validator, no font."""
    with browser.page(allowed=(f"{stack.api_url}/", "data:")) as opened:
        opened.page.goto(f"{stack.api_url}/docs/")
        yield opened


def sign_as(page: Page, name: str, secret_access_key: str | None = None) -> None:
    page.get_by_label("secret access key").fill(secret_access_key or f"{name}-secret/+=")
    page.get_by_label("access key id").fill(name.upper())


def block(page: Page, operation: str) -> Locator:
    found = page.locator(f"#operations-Tokens-{operation}")
    if not found.get_by_role("button", name="Execute").is_visible():
        found.locator(".opblock-summary-control").click()
    return found


def execute(form: Locator, status: int) -> str:
    """Send the form. Answers the response's body, once its status is there."""
    form.get_by_role("button", name="Execute").click()
    panel = form.locator(".live-responses-table tbody")
    expect(panel.locator("td.response-col_status")).to_contain_text(str(status))
    return panel.locator("pre .language-json").first.inner_text()


def test_a_person_reads_it_fills_in_the_form_and_gets_tokens_that_work(seen: Seen, stack: LocalStack) -> None:
    page = seen.page
    expect(page.locator(".opblock")).to_have_count(len(stack.application.routes))
    sign_as(page, "orders")
    token = json.loads(execute(block(page, "vendToken"), 200))
    batch = block(page, "vendTokens")
    batch.locator("textarea").fill('{"count": 3}')
    tokens = [token, *json.loads(execute(batch, 200))["tokens"]]
    assert len({one["accessToken"] for one in tokens}) == 4
    for one in tokens:
        answer = requests.get(f"{one['baseUrl']}/v1/identity/me", headers=one["headers"], timeout=10)
        assert answer.json()["tenants"][0]["tenantId"] == "tenant-a"
    seen.assert_no_complaints()


def test_a_person_sees_each_refusal(seen: Seen) -> None:
    page = seen.page
    form = block(page, "vendToken")
    assert "Missing Authentication Token" in execute(form, 403)
    form.get_by_role("button", name="Clear").click()
    sign_as(page, "stranger")
    assert "urn:imburse-vending:error:not_authorized" in execute(form, 403)
    form.get_by_role("button", name="Clear").click()
    sign_as(page, "orders", "guessed")
    assert "signature we calculated does not match" in execute(form, 403)


CASES = [
    ("POST", "/v1/credentials/sandbox/tenant-a/token", ""),
    ("POST", "/v1/credentials/sandbox/tenant-a/tokens", '{"count": 3, "note": "Grüße"}'),
    ("GET", "/v1/credentials/sand%20box/it%27s%20(not)%20there*/identity", ""),
    ("GET", "/v1/x?b=2&a=1&a=0&c=a%20b", ""),
]


def test_the_browser_signs_as_botocore_does(seen: Seen, stack: LocalStack) -> None:
    signer = SigV4Auth(Credentials("ORDERS", "orders-secret/+="), "execute-api", "eu-west-1")
    for method, path, body in CASES:
        expected = AWSRequest(method, stack.api_url + path, data=body)
        signer.add_auth(expected)
        signed = seen.page.evaluate(
            "async (asked) => (await import('/docs/sigv4.js')).signed({...asked, now: new Date(asked.now)})",
            {
                "method": method,
                "url": stack.api_url + path,
                "body": body,
                "accessKeyId": "ORDERS",
                "secretAccessKey": "orders-secret/+=",
                "region": "eu-west-1",
                "now": datetime.strptime(expected.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
                .replace(tzinfo=UTC)
                .isoformat(),
            },
        )
        assert signed == {name: expected.headers[name] for name in ("X-Amz-Date", "Authorization")}, path


def test_only_the_pages_own_files_are_served_and_no_other_page_may_frame_it(stack: LocalStack) -> None:
    page = requests.get(f"{stack.api_url}/docs", timeout=10)
    assert page.url == f"{stack.api_url}/docs/"
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    for file in ("package.json", "..%2fapi_page.py", "../stack.py", "swagger-ui.css.map"):
        prepared = requests.Request("GET", stack.api_url).prepare()
        prepared.url = f"{stack.api_url}/docs/{file}"
        with requests.Session() as session:
            assert session.send(prepared, timeout=10).status_code in (403, 404), file
