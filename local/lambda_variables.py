"""The environment variables that a function process gets: those of a real Lambda function, and nothing of ours."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from local.template import FunctionSpec

# Where this machine keeps its certificate authorities, and where compiled modules go. Everything else of the developer's
# environment stays out: credentials, profiles and proxies would reach real AWS, and code that works here thanks to them fails
# when deployed.
_OURS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PYTHONPYCACHEPREFIX")
_MADE_UP = "local"  # AWS credentials that are good for this machine's AWS alone


def sealed_variables(region: str, home: Path) -> dict[str, str]:
    """What any child process gets: an empty home, no configuration files, dummy credentials."""
    return {
        "PATH": os.defpath,
        "HOME": str(home),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": _MADE_UP,
        "AWS_SECRET_ACCESS_KEY": _MADE_UP,
        "AWS_SESSION_TOKEN": _MADE_UP,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        **{name: os.environ[name] for name in _OURS if name in os.environ},
    }


def function_variables(
    spec: FunctionSpec,
    version: str,
    *,
    region: str,
    task_root: Path,
    home: Path,
    layers: Mapping[str, Path],
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The variables of one execution environment.

    `layers` maps a folder under /opt (`/opt/access_policy`) to where the layer's content lies on this machine; `extra` is what
    the stack adds (endpoints), and wins over the template.
    """
    stream = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[{version}]{secrets.token_hex(16)}"
    return {
        **sealed_variables(region, home),
        "_HANDLER": spec.handler,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_VERSION": version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{spec.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "LAMBDA_TASK_ROOT": str(task_root),
        **{name: _mounted(value, layers) for name, value in spec.environment.items()},
        **extra,
    }


def _mounted(value: str, layers: Mapping[str, Path]) -> str:
    """The value, with a layer's folder under /opt replaced by where that layer lies here: this stands for mounting it."""
    for folder, path in layers.items():
        if value == folder or value.startswith(f"{folder}/"):
            return str(path) + value.removeprefix(folder)
    return value
