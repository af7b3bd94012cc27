import pytest

from imburse_auth import CredentialId
from imburse_auth.errors import CredentialMisconfigured
from imburse_auth.hosts import Hosts, normalise_base_url

HOSTS = Hosts.parse(
    "sandbox=https://sandbox-api.imbursepayments.com, production=https://api.imbursepayments.com/,acme=https://acme.example"
)
SANDBOX = CredentialId("sandbox", "tenant-a")


def test_an_environment_has_its_base_url() -> None:
    assert HOSTS.base_url(SANDBOX, None) == "https://sandbox-api.imbursepayments.com"
    assert HOSTS.base_url(CredentialId("production", "a"), None) == "https://api.imbursepayments.com"


def test_a_credential_may_name_another_host_of_the_list() -> None:
    assert HOSTS.base_url(SANDBOX, "HTTPS://Acme.Example:443/") == "https://acme.example"


@pytest.mark.parametrize(
    "own",
    [
        "https://evil.example", "https://acme.example.evil.example", "https://acme.example@evil.example", "https://acme.example:8443",
        "http://acme.example", "https://acme.example/path", "https://acme.example?x", "https://acme.example#x", "//acme.example",
        "https://acme.example\\@evil.example", "https://acme.example\r\nHost: evil", "https://аcme.example", "ftp://acme.example",
        "file:///etc/passwd", "http://169.254.169.254", "https://[::1", "https://acme.example:99999", "https://%61cme.example", "acme.example", "https://",
    ],
)  # fmt: skip
def test_a_host_that_is_not_on_the_list_is_misconfigured_and_not_shown(own: str) -> None:
    with pytest.raises(CredentialMisconfigured, match=r"^baseUrl: ") as caught:
        HOSTS.base_url(SANDBOX, own)
    assert own not in str(caught.value)


def test_an_environment_without_a_base_url_is_misconfigured() -> None:
    with pytest.raises(CredentialMisconfigured, match=r"^environment: "):
        HOSTS.base_url(CredentialId("elsewhere", "a"), None)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:80", "http://127.0.0.1/base/"]
)
def test_plain_http_is_for_this_machine_only(url: str) -> None:
    assert normalise_base_url(url).startswith("http://")
    with pytest.raises(ValueError, match="must be https"):
        normalise_base_url("http://127.0.0.1.evil.example")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "at least one"),
        ("sandbox", "sandbox"),
        ("a=https://x.test,a=https://y.test", "a: "),
        ("a b=https://x.test", "environment"),
        ("a=http://x.test", "https"),
    ],
)
def test_a_map_that_is_wrong_names_the_entry(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Hosts.parse(text)
