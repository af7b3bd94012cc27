import pytest

from tests.machine import ENVIRON
from vending.config import Config


def test_the_environment_is_read_once_into_settings() -> None:
    config = Config.from_env(ENVIRON)
    assert (config.service, config.access_policy.name) == ("vend", "dev.cedar")


@pytest.mark.parametrize("variable", ["POWERTOOLS_SERVICE_NAME", "ACCESS_POLICY", "IMBURSE_HOSTS"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_variable_that_is_missing_is_named(variable: str, value: str | None) -> None:
    environ = {name: text for name, text in ENVIRON.items() if name != variable}
    if value is not None:
        environ[variable] = value
    with pytest.raises(ValueError, match=rf"^{variable}: "):
        Config.from_env(environ)


@pytest.mark.parametrize(
    "hosts", ["sandbox", "sandbox=http://imburse.test", "sandbox=https://a.test,sandbox=https://b.test"]
)
def test_hosts_that_are_wrong_name_the_variable(hosts: str) -> None:
    with pytest.raises(ValueError, match=r"^IMBURSE_HOSTS: "):
        Config.from_env(ENVIRON | {"IMBURSE_HOSTS": hosts})
