"""Facts about the models of another server: names, context length, and voices.

No standard defines where to find them. The field names are those of vLLM, SGLang, llama-server, LM Studio, OpenRouter,
Mistral, Groq and localapi.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from localapi.backends.http_client import HttpClient
from localapi.backends.upstream import Sought
from localapi.errors import ApiError, UpstreamRefused, listed, shown
from localapi.worker.protocol import Voice

MOST_LISTED: Final = 10
_CONTEXT_FIELDS: Final = (
    *("max_model_len", "context_length", "loaded_context_length", "max_context_length", "context_window"),
    *("max_input_tokens", "n_ctx"),
)


@dataclass(frozen=True)
class Facts:
    """Known facts about an upstream's model."""

    model: str | None = None
    """Name on the other server; None if that has a default model and lists none."""
    context_length: int | None = None
    voices: list[Voice] | None = None
    notes: list[str] = field(default_factory=list)


async def discover(client: HttpClient, name: str, sought: Sought) -> Facts:
    """Return the facts that the server reports about a model. Raise ApiError. `name` is the entry's, for messages.

    This selects the client's base among those that the URL may mean.
    """
    facts = await _facts(client, name, sought)
    return replace(facts, voices=await _voices(client, facts.model)) if sought.voices else facts


async def _facts(client: HttpClient, name: str, sought: Sought) -> Facts:
    models = [each for each in await client.models() or () if isinstance(each, dict) and each.get("id")]
    model = sought.model
    if model is None and len(models) != 1:
        model = sought.usual_model
    if not models:
        # Without a name, servers with one model use that model.
        return Facts(model, notes=["the upstream lists no models"])
    ids = [str(each.get("id")) for each in models]
    there = f"the models {listed(ids, MOST_LISTED)}"
    if model is None:
        if len(ids) != 1:
            if sought.has_default:
                return Facts()
            raise UpstreamRefused(f"The upstream of {name} has {there}. Set `model` to one of them.")
        model = ids[0]
    notes: list[str] = []
    found = next((each for each in models if each.get("id") == model or model in _aliases(each)), None)
    if found is None:
        notes.append(f"the upstream does not list the model {shown(model)}; it has {there}")
        return Facts(model, notes=notes)
    return Facts(model, await _context_length(client, found, model), notes=notes)


async def _context_length(client: HttpClient, model: dict[str, Any], name: str) -> int | None:
    found = _number(model)
    if found is not None:
        return found
    if model.get("owned_by") == "llamacpp":
        props = await _asked(client, "/../props")
        settings = props.get("default_generation_settings")
        found = _number(settings) if isinstance(settings, dict) else None
        meta = model.get("meta")
        trained = meta.get("n_ctx_train") if isinstance(meta, dict) else None
        return found or (trained if isinstance(trained, int) else None)
    if model.get("owned_by") == "organization_owner":  # LM Studio
        listed = (await _asked(client, "/../api/v0/models")).get("data")
        for each in listed if isinstance(listed, list) else ():
            if isinstance(each, dict) and each.get("id") == name:
                return _number({key: each.get(key) for key in ("loaded_context_length", "max_context_length")})
    return None


async def _asked(client: HttpClient, path: str) -> dict[str, Any]:
    """Return a reply, or None if the request fails."""
    try:
        content = await client.get(path)
    except ApiError:
        return {}
    return content if isinstance(content, dict) else {}


def _number(fields: dict[str, Any]) -> int | None:
    for name in _CONTEXT_FIELDS:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _aliases(model: dict[str, Any]) -> list[Any]:
    aliases = model.get("aliases")
    return aliases if isinstance(aliases, list) else []


async def _voices(client: HttpClient, model: str | None) -> list[Voice] | None:
    """Return the voices that the server lists for a speech model; None if it lists none."""
    listed = (await _asked(client, "/audio/voices")).get("voices")
    if not isinstance(listed, list):
        return None
    voices: list[Voice] = []
    for each in listed:
        if isinstance(each, str):
            voices.append(Voice(each))
        elif isinstance(each, dict) and each.get("model", model) == model:
            name = each.get("id") or each.get("voice_id") or each.get("name")
            if name:
                voices.append(Voice(str(name), str(each.get("name") or ""), str(each.get("language") or "")))
    return voices or None
