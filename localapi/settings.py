"""Settings that need a restart to change (address, manifest, log level), from flags, the environment and `.env`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from localapi.errors import StartError

_ALIASES = {"manifest": "LOCALAPI_MANIFEST", "profile": "LOCALAPI_PROFILE", "api_key": "LOCALAPI_API_KEY"}
_EXPECTED = {
    "port": "a whole number from 0 to 65535",
    "log_level": "debug, info, warning or error",
    "log_format": "text or json",
}


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """Settings of this process. Create them with `read()`."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port; 0 lets the system choose."""
    manifest: Annotated[Path | None, Field(validation_alias="LOCALAPI_MANIFEST")] = None
    profile: Annotated[str | None, Field(validation_alias="LOCALAPI_PROFILE")] = None
    api_key: Annotated[SecretStr | None, Field(validation_alias="LOCALAPI_API_KEY")] = None
    """API key that the other commands send to the server."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, BeforeValidator(_lowered)] = None
    """Log level that overrides the manifest's server.log_level."""
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lowered)] = "text"
    """Format of log lines: text for people, or one JSON object per line."""

    @property
    def address(self) -> str:
        """URL of the server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def key_header(self) -> dict[str, str]:
        """Header with the API key; empty without a key. Raise StartError if the key is invalid."""
        if self.api_key is None:
            return {}
        key = self.api_key.get_secret_value()
        if not (key.isascii() and key.isprintable()):
            raise StartError("LOCALAPI_API_KEY should be printable ASCII text, but has other characters")
        return {"Authorization": f"Bearer {key}"}

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, values: Mapping[str, object]) -> Mapping[str, object]:
        return {name: value for name, value in values.items() if not (isinstance(value, str) and not value.strip())}

    @classmethod
    def read(cls, **flags: object) -> Self:
        """Return settings from flags (by field name; None is unset), the environment and `.env`, in that order.

        Raise StartError for an invalid value.
        """
        given: dict[str, Any] = {_ALIASES.get(name, name): value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            raise StartError("\n".join(_sentence(part, given) for part in error.errors())) from None
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f".env cannot be read: {error}") from None


def _sentence(error: ErrorDetails, flags: Mapping[str, object]) -> str:
    name = str(error["loc"][0])
    flag = next((field for field, alias in _ALIASES.items() if alias == name), name).replace("_", "-")
    said_by = f"--{flag}" if name in flags else f"the environment variable {name.upper()}"
    return f"{said_by} should be {_EXPECTED.get(name, 'text')}; found {error['input']!r}"
