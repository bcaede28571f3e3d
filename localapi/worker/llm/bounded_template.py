"""Chat templates that cannot exhaust memory: the result of one instruction has a maximum size.

Templates come with models and are filled with text from clients. Jinja's sandbox protects files and modules, and it
limits ranges, but it computes `{{ "x" * 9999999999 }}`. Such an instruction is one call into C, which `time_limit`
cannot interrupt. Results of many instructions are left to `time_limit`.
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
"""Maximum characters of a text, and elements of a list: more than any model can read."""
MAX_BITS: Final = 100_000
"""Maximum bits of an integer."""
MAX_WIDTH: Final = 100_000
"""Maximum width to which a text is padded, as jinja2's MAX_RANGE."""
_FORMAT: Final = re.compile(r"%(?:\([^)]*\))?[-+ #.\d*]*|\{[^{}]*:[^{}]*")
_WIDTH: Final = re.compile(r"\d{1,20}")
_WIDTH_FROM_VALUE: Final = re.compile(r"%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")
_PADDING_METHODS: Final = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
_PADDING_FILTERS: Final = ("batch", "center", "indent", "round", "slice")


class TemplateTooLarge(SecurityError):
    """A template creates something too large."""

    def __init__(self, what: str) -> None:
        super().__init__(f"it creates {what}")


class _CodeGenerator(CodeGenerator):
    """Code generator that lets the environment join the operands of `~`."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802  # jinja2's name
        self.write("environment.joined((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with limits."""

    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.filters = _BoundedFilters(self.filters)
        self.finalize = _sized

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Join the pieces of the whole output or of a block."""
        joined: list[str] = []
        length = 0
        for piece in pieces:
            length += len(piece)
            _check_length(length)
            joined.append(piece)
        return "".join(joined)

    def joined(self, operands: Iterable[object]) -> str:
        """Join the operands of `~`."""
        return self.concat(str(_sized(operand)) for operand in operands)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _CHECKS[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return jinja2's replacement of `str.format` and `format_map`, with a limit on the widths in the format."""
        format_ = super().wrap_str_format(value)
        if format_ is None:
            return None

        @wraps(format_)
        def bounded(*args: Any, **kwargs: Any) -> str:
            given = args[0].values() if value.__name__ == "format_map" else (*args, *kwargs.values())
            _check_formats(value.__self__, given)
            return format_(*args, **kwargs)

        return bounded

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # jinja2's names
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, getattr(__obj, "__name__", ""), args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)


def install() -> None:
    """Make transformers render chat templates in a bounded environment. Can be repeated."""
    library: Any = chat_template_utils  # it exports neither name; no function of it takes an environment
    if library.ImmutableSandboxedEnvironment is not BoundedEnvironment:
        library.ImmutableSandboxedEnvironment = BoundedEnvironment
        library._compile_jinja_template.cache_clear()


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise TemplateTooLarge(f"more than {MAX_CHARACTERS} characters")


def _check_width(width: object) -> None:
    if isinstance(width, int) and width > MAX_WIDTH:
        raise TemplateTooLarge(f"a text of width {width}; the maximum is {MAX_WIDTH}")


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise TemplateTooLarge(f"a number of {bits} bits; the maximum is {MAX_BITS}")


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
    elif method == "join" and args:
        _check_join(args[0], owner)
    elif method == "replace" and len(args) > 1:
        _check_replace(owner, args[0], args[1])


_CHECKS: Final[dict[str, Callable[[Any, Any], None]]] = {
    "+": _check_sum,
    "*": _check_product,
    "**": _check_power,
    "%": _check_remainder,
}


def _check_join(items: object, between: object = "", attribute: object = None) -> None:
    if isinstance(items, list | tuple):
        _check_length(_size(items) + len(items) * len(str(between)))


def _check_replace(text: object, old: object, new: object, count: object = None) -> None:
    _check_length(len(str(text)) + str(text).count(str(old)) * len(str(new)))


def _sized(value: Any) -> Any:
    """Return the value. Raise TemplateTooLarge if its text would be too long."""
    if isinstance(value, list | tuple | dict):
        _check_length(_size(value))
    return value


def _size(value: object, known: dict[int, int] | None = None) -> int:
    """Return the approximate length of a value's text, in a few instructions even if it repeats parts many times."""
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, list | tuple | dict):
        return 1
    known = {} if known is None else known
    if id(value) not in known:
        known[id(value)] = 1  # it may contain itself
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = sum(_size(part, known) + 1 for part in parts)
    return known[id(value)]


_FILTER_CHECKS: Final[dict[str, Callable[..., None]]] = {
    "format": lambda template, *args, **kwargs: _check_formats(str(template), (*args, *kwargs.values())),
    "join": _check_join,
    "pprint": lambda value, *_, **__: _check_length(_size(value)),
    "replace": _check_replace,
    "string": lambda value: _check_length(_size(value)),
    "tojson": lambda value, *_, **__: _check_length(_size(value)),
}


class _BoundedFilters(dict[str, Callable[..., Any]]):
    """Filters that refuse to make too much. transformers sets its own later."""

    def __init__(self, filters: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        for name, filter_ in filters.items():
            self[name] = filter_

    def __setitem__(self, name: str, filter_: Callable[..., Any]) -> None:
        if name in _PADDING_FILTERS:
            filter_ = _narrow(filter_)
        elif name in _FILTER_CHECKS:
            filter_ = _checked(filter_, _FILTER_CHECKS[name])
        super().__setitem__(name, filter_)


def _checked(filter_: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """Return the filter with a check of its arguments."""
    passed = getattr(filter_, "jinja_pass_arg", None) is not None

    @wraps(filter_)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check(*(args[1:] if passed else args), **kwargs)
        return filter_(*args, **kwargs)

    return checked


def _narrow(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter with a limit on its widths."""

    @wraps(filter_)
    def narrow(*args: Any, **kwargs: Any) -> Any:
        for width in (*args[1:], *kwargs.values()):  # the first argument is the filtered value, or jinja2's context
            _check_width(width)
        return filter_(*args, **kwargs)

    return narrow
