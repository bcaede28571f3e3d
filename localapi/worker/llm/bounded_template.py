"""Chat templates that cannot fill the memory: what one instruction of a template makes has a greatest size.

Templates come with models and are filled with what clients send. Jinja's sandbox keeps them from files and modules, and
bounds ranges; `{{ "x" * 9999999999 }}` it computes. Such an instruction is one call into C, which `time_limit` cannot
interrupt. Whatever is long because it has many instructions is left to `time_limit`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils import chat_template_utils

MAX_CHARACTERS: Final = 32 * 1024 * 1024
"""Of a text that a template makes, and elements of a list: more than any model reads."""
MAX_BITS: Final = 100_000
"""Of an integer."""
MAX_WIDTH: Final = 100_000
"""That a text is padded to; as jinja2's MAX_RANGE."""
_FORMAT: Final = re.compile(r"%(?:\([^)]*\))?[-+ #.\d*]*|\{[^{}]*:[^{}]*")
_WIDTH: Final = re.compile(r"\d{1,20}")
_WIDTH_FROM_VALUE: Final = re.compile(r"%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")
_PADDING_METHODS: Final = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
_PADDING_FILTERS: Final = ("batch", "center", "indent", "round", "slice")


class TemplateTooLarge(SecurityError):
    """A template makes too much of something."""

    def __init__(self, what: str) -> None:
        super().__init__(f"it makes {what}")


class _CodeGenerator(CodeGenerator):
    """Has `~` joined by the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802  # jinja2's name
        self.write("environment.joined((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, with bounds."""

    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in _PADDING_FILTERS:
            self.filters[name] = _narrow(self.filters[name])

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Join the pieces of an output: the whole one, or that of a block."""
        joined: list[str] = []
        length = 0
        for piece in pieces:
            length += len(piece)
            _check_length(length)
            joined.append(piece)
        return "".join(joined)

    def joined(self, operands: Iterable[object]) -> str:
        """What `~` makes."""
        return self.concat(map(str, operands))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _CHECKS[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # jinja2's names
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, getattr(__obj, "__name__", ""), args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)


def install() -> None:
    """Have transformers render chat templates in a bounded environment. Harmless if done again."""
    library: Any = chat_template_utils  # it exports neither name; no function of it takes an environment
    if library.ImmutableSandboxedEnvironment is not BoundedEnvironment:
        library.ImmutableSandboxedEnvironment = BoundedEnvironment
        library._compile_jinja_template.cache_clear()


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise TemplateTooLarge(f"more than {MAX_CHARACTERS} characters")


def _check_width(width: object) -> None:
    if isinstance(width, int) and width > MAX_WIDTH:
        raise TemplateTooLarge(f"a text {width} wide; at most {MAX_WIDTH} are possible")


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise TemplateTooLarge(f"a number of {bits} bits; at most {MAX_BITS} are possible")


def _check_sum(left: Any, right: Any) -> None:
    if hasattr(left, "__len__") and hasattr(right, "__len__"):
        _check_length(len(left) + len(right))


def _check_product(left: Any, right: Any) -> None:
    for times, repeated in ((left, right), (right, left)):
        if isinstance(times, int):
            if isinstance(repeated, int):
                _check_bits(times.bit_length() + repeated.bit_length())
            elif hasattr(repeated, "__len__"):
                _check_length(max(times, 0) * len(repeated))


def _check_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(base.bit_length() * max(exponent, 0))


def _check_remainder(left: Any, right: Any) -> None:
    if isinstance(left, str):
        _check_formats(left, right if isinstance(right, tuple) else (right,))


def _check_formats(template: str, values: Iterable[object]) -> None:
    """Refuse a format that names a width beyond MAX_WIDTH, or takes it from a value."""
    for width in _WIDTH.findall(" ".join(_FORMAT.findall(template))):
        _check_width(int(width))
    if _WIDTH_FROM_VALUE.search(template):
        for value in values:
            _check_width(value)


def _check_method(owner: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if method in _PADDING_METHODS:
        for width in (*args, *kwargs.values()):
            _check_width(width)
    elif method in ("format", "format_map"):
        _check_formats(owner, (*args, *kwargs.values()))
    elif method == "join" and args and isinstance(args[0], list | tuple):
        _check_length(sum(len(str(item)) + len(owner) for item in args[0]))
    elif method == "replace" and len(args) > 1:
        _check_length(len(owner) + owner.count(str(args[0])) * len(str(args[1])))


_CHECKS: Final[dict[str, Callable[[Any, Any], None]]] = {
    "+": _check_sum,
    "*": _check_product,
    "**": _check_power,
    "%": _check_remainder,
}


def _narrow(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, with a bound to the widths that it is given."""

    @wraps(filter_)
    def narrow(*args: Any, **kwargs: Any) -> Any:
        for width in (*args[1:], *kwargs.values()):  # the first is what is filtered, or jinja2's context
            _check_width(width)
        return filter_(*args, **kwargs)

    return narrow
