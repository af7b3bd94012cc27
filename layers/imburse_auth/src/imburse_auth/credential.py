"""The name of a credential, `<environment>/<name>`, and where its secret is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

SECRET_PREFIX = "imburse/"  # noqa: S105  # nosec B105 # where secrets are, not one

# ASCII letters and digits, not \w: an id that looks like another (a Cyrillic "а", a full-width "Ａ") must not parse.
PART_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"
_PART = re.compile(PART_PATTERN)


@dataclass(frozen=True)
class CredentialId:
    """`environment` and `name`: both 1 to 64 ASCII letters, digits, `.`, `-` or `_`, a letter or digit at both ends.

    Ids are compared to the letter everywhere (policy, secret name, caches): no folding of case, no normalisation.
    """

    environment: str
    name: str

    def __post_init__(self) -> None:
        for field, value in (("environment", self.environment), ("name", self.name)):
            if not (isinstance(value, str) and _PART.fullmatch(value) and ".." not in value):
                raise ValueError(
                    f"credential {field}: must be 1 to 64 letters, digits, '.', '-' or '_', a letter or digit at both ends"
                )

    @classmethod
    def parse(cls, text: object) -> CredentialId:
        """Read `<environment>/<name>`. Raises ValueError, which names the rule and not the value."""
        if not isinstance(text, str) or text.count("/") != 1:
            raise ValueError("credential: must be text of the form <environment>/<name>")
        return cls(*text.split("/"))

    @property
    def secret_name(self) -> str:
        """The Secrets Manager name, `imburse/<environment>/<name>`."""
        return f"{SECRET_PREFIX}{self}"

    def __str__(self) -> str:
        return f"{self.environment}/{self.name}"
