"""Programs that `localapi launch` can start, and the settings that make each use a model of the server.

Settings are passed in variables, arguments, or files in a temporary folder; the user's own files are never changed. An
API key is only ever the whole value of a variable, so arguments and files can be shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

FOLDER: Final = "{folder}"
"""Placeholder for the path of the temporary folder in variables and arguments."""
KEY_VARIABLE: Final = "LOCALAPI_API_KEY"
PATIENCE_MS: Final = 3_600_000
"""Time limit for a response; a local model can take minutes to read a long prompt."""
_USUAL_CONTEXT: Final = 32_768
"""Context length for programs that require one, if the model's is unknown."""


@dataclass(frozen=True)
class Target:
    """Model to use: the server's address, the model's name, and its context length if known."""

    address: str
    model: str
    context_length: int | None

    @property
    def base_url(self) -> str:
        """Base URL of the OpenAI API."""
        return f"{self.address}/v1"

    @property
    def window(self) -> int:
        """Context length, or a default if it is unknown."""
        return self.context_length or _USUAL_CONTEXT

    @property
    def longest_answer(self) -> int:
        """Maximum tokens of a response, so that there is room for the prompt."""
        return min(self.window // 4, 32_000)


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """Settings for a program."""

    variables: Mapping[str, str] = field(default_factory=dict)
    key_variables: tuple[str, ...] = (KEY_VARIABLE,)
    """Variables that are set to the API key, or to a placeholder, because these programs require one."""
    unset: tuple[str, ...] = ()
    """Variables of the user's environment that would send the program elsewhere."""
    arguments: tuple[str, ...] = ()
    """Arguments that precede the user's."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files in the temporary folder."""


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A program that uses a model."""

    name: str
    install: str
    """Command that installs it."""
    set_up: Callable[[Target], SetUp]
    context: int
    """Smallest useful context length: its first prompt, and room to work."""
    tools: bool = True
    """True if the model must be able to call tools."""


def _claude(target: Target) -> SetUp:
    limits = {}
    if target.context_length is not None:
        limits["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(target.context_length)
        limits["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(target.longest_answer)
    # It asks for smaller models, for titles and sub-agents, by these names.
    tiers = ("OPUS", "SONNET", "HAIKU")
    return SetUp(
        variables={
            "ANTHROPIC_BASE_URL": target.address,
            "ANTHROPIC_MODEL": target.model,
            **{f"ANTHROPIC_DEFAULT_{tier}_MODEL": target.model for tier in tiers},
            "CLAUDE_CODE_SUBAGENT_MODEL": target.model,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "API_TIMEOUT_MS": str(PATIENCE_MS),
            **limits,
        },
        key_variables=("ANTHROPIC_AUTH_TOKEN",),
        unset=(
            "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_SMALL_FAST_MODEL", "ANTHROPIC_CUSTOM_HEADERS",
            "ANTHROPIC_UNIX_SOCKET", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY",
        ),
    )  # fmt: skip


def _codex(target: Target) -> SetUp:
    options: dict[str, object] = {
        "model": target.model,
        "model_provider": "localapi",
        "model_providers.localapi.name": "localapi",
        "model_providers.localapi.base_url": target.base_url,
        "model_providers.localapi.env_key": KEY_VARIABLE,
        "model_providers.localapi.wire_api": "responses",
        "model_providers.localapi.stream_idle_timeout_ms": PATIENCE_MS,
    }
    if target.context_length is not None:
        options["model_context_window"] = target.context_length
    # A JSON string or number is also valid TOML.
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={json.dumps(value)}")]
    return SetUp(arguments=tuple(arguments))


def _opencode(target: Target) -> SetUp:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "localapi",
        "options": {"baseURL": target.base_url, "apiKey": f"{{env:{KEY_VARIABLE}}}", "timeout": PATIENCE_MS},
        "models": {
            target.model: {
                "name": target.model,
                "tool_call": True,
                "limit": {"context": target.window, "output": target.longest_answer},
            }
        },
    }
    model = f"localapi/{target.model}"
    # The second model writes titles.
    config = {"model": model, "small_model": model, "provider": {"localapi": provider}}
    return SetUp(variables={"OPENCODE_CONFIG_CONTENT": json.dumps(config)})


def _qwen(target: Target) -> SetUp:
    return SetUp(
        variables={"OPENAI_BASE_URL": target.base_url, "OPENAI_MODEL": target.model},
        key_variables=("OPENAI_API_KEY",),
        unset=("QWEN_MODEL",),
        arguments=("--auth-type", "openai"),
    )


def _pi(target: Target) -> SetUp:
    model = {
        "id": target.model,
        "name": target.model,
        "reasoning": False,
        "input": ["text"],
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
        "contextWindow": target.window,
        "maxTokens": target.longest_answer,
    }
    provider = {"baseUrl": target.base_url, "api": "openai-completions", "models": [model]}
    # The key is set in code, because pi's releases differ in how they write the name of a variable.
    extension = (
        f"const provider = {json.dumps(provider)};\n"
        f"provider.apiKey = process.env.{KEY_VARIABLE};\n"
        'export default (pi) => pi.registerProvider("localapi", provider);\n'
    )
    return SetUp(
        arguments=("-e", f"{FOLDER}/localapi.js", "--provider", "localapi", "--model", target.model),
        files={"localapi.js": extension},
    )


def _continue(target: Target) -> SetUp:
    config = {
        "name": "localapi",
        "version": "1.0.0",
        "schema": "v1",
        "models": [
            {
                "name": target.model,
                "provider": "openai",
                "model": target.model,
                "apiBase": target.base_url,
                "apiKey": f"${{{{ secrets.{KEY_VARIABLE} }}}}",
                "roles": ["chat"],
                "capabilities": ["tool_use"],
                "contextLength": target.window,
            }
        ],
    }
    # JSON is also valid YAML.
    return SetUp(
        arguments=("--config", f"{FOLDER}/config.yaml"), files={"config.yaml": json.dumps(config, indent=2) + "\n"}
    )


def _aider(target: Target) -> SetUp:
    return SetUp(
        variables={"OPENAI_API_BASE": target.base_url},
        key_variables=("OPENAI_API_KEY",),
        arguments=("--model", f"openai/{target.model}", "--no-show-model-warnings"),
    )


def _goose(target: Target) -> SetUp:
    return SetUp(
        variables={
            "GOOSE_PROVIDER": "openai",
            "GOOSE_MODEL": target.model,
            "OPENAI_HOST": target.address,
            "OPENAI_BASE_PATH": "v1/chat/completions",
        },
        key_variables=("OPENAI_API_KEY",),
    )


def _llm(target: Target) -> SetUp:
    model = {
        "model_id": target.model,
        "model_name": target.model,
        "api_base": target.base_url,
        "api_key_name": "localapi",
        "supports_tools": True,
        "supports_schema": True,
    }
    files = {"extra-openai-models.yaml": json.dumps([model]) + "\n", "default_model.txt": target.model}
    return SetUp(variables={"LLM_USER_PATH": FOLDER}, key_variables=("OPENAI_API_KEY",), files=files)


AGENTS: Final = {
    agent.name: agent
    for agent in (
        Agent(name="claude", install="npm install -g @anthropic-ai/claude-code", set_up=_claude, context=32_768),
        Agent(name="codex", install="npm install -g @openai/codex", set_up=_codex, context=16_384),
        Agent(name="opencode", install="npm install -g opencode-ai", set_up=_opencode, context=16_384),
        Agent(name="qwen", install="npm install -g @qwen-code/qwen-code", set_up=_qwen, context=32_768),
        Agent(name="pi", install="npm install -g @earendil-works/pi-coding-agent", set_up=_pi, context=8192),
        Agent(name="cn", install="npm install -g @continuedev/cli", set_up=_continue, context=8192),
        Agent(name="goose", install="brew install block-goose-cli", set_up=_goose, context=16_384),
        Agent(
            name="aider", install="uv tool install --python 3.12 aider-chat", set_up=_aider, context=8192, tools=False
        ),
        Agent(name="llm", install="uv tool install llm", set_up=_llm, context=0, tools=False),
    )
}
"""Agents by program name."""
