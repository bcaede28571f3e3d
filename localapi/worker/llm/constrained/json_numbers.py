"""Rewrite the number keywords of a JSON schema to forms that llguidance (1.9) enforces correctly.

It stores every number as a double, computes ranges in 64 bits (beyond them it refuses or crashes), includes the 0 of an
open range, and never ends with a large `multipleOf`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

LARGEST: Final = 2**63 - 1024
"""The largest double below 2^63."""
_EXACT: Final = 2**53
"""Largest integer up to which every integer is a double."""
_FAR: Final = 10**17
"""Number beyond which a range without another end has too many digits."""
LEAST: Final = 1e-30
"""Smallest fraction with few enough digits for a range."""
LARGEST_STEP: Final = 1000
"""Largest `multipleOf`, written as a whole number without its decimal point."""
MOST_MULTIPLES: Final = 500
MOST_ZEROS: Final = 20
LARGEST_DIVISOR: Final = 50_000


@dataclass(slots=True)
class Range:
    """Keywords for numbers, and the names of those that had to be relaxed."""

    keywords: dict[str, Any] = field(default_factory=dict)
    relaxed: list[str] = field(default_factory=list)


def supported_range(schema: Mapping[str, Any], *, whole: bool) -> Range:
    """Return the bounds and the step that llguidance can enforce. If `whole`, only integers are allowed.

    A range whose ends llguidance cannot represent becomes a little smaller.
    """
    found = Range()
    low, low_open = _bound(schema, "minimum", "exclusiveMinimum", 1)
    high, high_open = _bound(schema, "maximum", "exclusiveMaximum", -1)
    if whole:
        low, low_open = _whole(low, low_open, math.ceil, 1), False
        high, high_open = _whole(high, high_open, math.floor, -1), False
        if low is not None and low == high and not spells(low):
            near, exact = members_nearby(low)
            return Range({key: part for key, part in near.items() if key != "type"}, [] if exact else ["minimum"])
    low, high = _inside(low, up=True), _inside(high, up=False)
    if low is not None and low > LARGEST:
        found.relaxed.append("minimum")
        low, low_open = None, False
    if high is not None and high < -LARGEST:
        found.relaxed.append("maximum")
        high, high_open = None, False
    low, high = _held(low, high)
    if not whole:
        low, low_open, high, high_open = _opened_at_zero(low, low_open, high, high_open)
    if low is not None:
        found.keywords["exclusiveMinimum" if low_open else "minimum"] = low
    if high is not None:
        found.keywords["exclusiveMaximum" if high_open else "maximum"] = high
    if "multipleOf" in schema:
        _add_step(found, schema["multipleOf"], low, high, whole=whole)
    return found


def spells(value: Any) -> bool:
    """Return True if llguidance writes this value correctly as a `const`."""
    match value:
        case float():
            return math.isfinite(value) and (abs(value) < LARGEST or _spells_whole(int(Decimal(repr(value)))))
        case int():
            return _spells_whole(int(value))
        case list():
            return all(map(spells, value))
        case dict():
            return all(map(spells, value.values()))
        case _:
            return True


def _spells_whole(value: int) -> bool:
    if abs(value) <= _EXACT:
        return True
    try:
        held = float(value)
    except OverflowError:
        return False
    return held == value and (abs(value) <= LARGEST or int(Decimal(repr(held))) == value)


def members_nearby(value: Any) -> tuple[dict[str, Any], bool]:
    """Return a schema for a value that llguidance cannot write, and whether nothing else satisfies it.

    An integer is the only multiple of one of its divisors between the two neighbouring doubles, if it has such a
    divisor.
    """
    if isinstance(value, list):
        parts = [_near(item) for item in value]
        schema = {"type": "array", "prefixItems": [part for part, _ in parts], "items": False, "minItems": len(parts)}
        return schema, all(exact for _, exact in parts)
    if isinstance(value, dict):
        found = {key: _near(item) for key, item in value.items()}
        schema = {
            "type": "object",
            "properties": {key: part for key, (part, _) in found.items()},
            "required": list(found),
            "additionalProperties": False,
        }
        return schema, all(exact for _, exact in found.values())
    if not isinstance(value, int) or abs(value) > LARGEST:
        return {"type": "integer" if isinstance(value, int) else "number"}, False
    held = float(value)
    below = int(held if held < value else math.nextafter(held, -math.inf))
    above = int(held if held > value else math.nextafter(held, math.inf))
    schema = {"type": "integer", "minimum": max(below, -LARGEST), "maximum": min(above, LARGEST)}
    reach = max(value - below, above - value)
    for divisor in range(reach + 1, LARGEST_DIVISOR):
        if value % divisor == 0:
            return {**schema, "multipleOf": divisor}, True
    return schema, False


def _near(value: Any) -> tuple[dict[str, Any], bool]:
    return ({"enum": [value]}, True) if spells(value) else members_nearby(value)


def _bound(schema: Mapping[str, Any], closed: str, opened: str, sign: int) -> tuple[Any, bool]:
    """Return the tighter of two bounds, and whether it is open. In draft 4, `true` opens the closed one."""
    value, other = schema.get(closed), schema.get(opened)
    if isinstance(other, bool):
        return (None, False) if value is None or value == -sign * math.inf else (value, other)
    if value is not None and value == -sign * math.inf:
        value = None
    if other is not None and other == -sign * math.inf:
        other = None
    if value is None or (other is not None and sign * other >= sign * value):
        return other, other is not None
    return value, False


def _whole(bound: Any, is_open: bool, towards: Any, step: int) -> Any:
    """Return the outermost integer within a bound."""
    if bound is None or (isinstance(bound, float) and math.isinf(bound)):
        return bound
    inner = towards(bound)
    return inner + step if is_open and inner == bound else inner


def _inside(bound: Any, *, up: bool) -> Any:
    """Return the bound, or the next double within it."""
    if not isinstance(bound, int) or abs(bound) > LARGEST:
        return bound
    held = float(bound)
    if held < bound and up:
        held = math.nextafter(held, math.inf)
    if held > bound and not up:
        held = math.nextafter(held, -math.inf)
    return int(held)


def _held(low: Any, high: Any) -> tuple[Any, Any]:
    """Return the part of the range that 64 bits can hold."""
    low = max(low, -LARGEST) if low is not None else None
    high = min(high, LARGEST) if high is not None else None
    if low is not None and low > _FAR and high is None:
        high = LARGEST
    if high is not None and high < -_FAR and low is None:
        low = -LARGEST
    return low, high


def _opened_at_zero(low: Any, low_open: bool, high: Any, high_open: bool) -> tuple[Any, bool, Any, bool]:
    """Return a range of fractions without tiny ends and without an open 0, by leaving out a millionth of it."""
    if low is not None and 0 < abs(low) < LEAST:
        low, low_open = (LEAST, False) if low > 0 else (0, False)
    if high is not None and 0 < abs(high) < LEAST:
        high, high_open = (-LEAST, False) if high < 0 else (0, False)
    if low == 0 and low_open:
        low, low_open = _small_part(high), False
    if high == 0 and high_open:
        part = _small_part(None if low is None else -low)
        high, high_open = (None if part is None else -part), False
    return low, low_open, high, high_open


def _small_part(end: Any) -> float:
    """Return a power of ten that is small compared with the range's other end."""
    if end is None or end >= 1:
        return 1e-9
    return float(10.0 ** (math.floor(math.log10(end)) - 6)) if end > 0 else LEAST


def _add_step(found: Range, step: Any, low: Any, high: Any, *, whole: bool) -> None:
    if isinstance(step, float) and not math.isfinite(step):
        found.relaxed.append("multipleOf")
        return
    exact = Decimal(repr(step))
    if whole and Decimal(1) % exact == 0:
        return
    _, digits, exponent = exact.normalize().as_tuple()
    assert isinstance(exponent, int)  # noqa: S101  # it is finite
    size = int("".join(map(str, digits))) * 10 ** max(0, min(exponent, MOST_ZEROS))
    if size <= LARGEST_STEP:
        found.keywords["multipleOf"] = step
        return
    if whole and low is not None and high is not None and exact == exact.to_integral_value():
        whole_step = int(exact)
        first = -(-math.ceil(low) // whole_step)
        last = math.floor(high) // whole_step
        if last - first < MOST_MULTIPLES:
            multiples = [factor * whole_step for factor in range(first, last + 1)]
            if all(map(spells, multiples)):
                found.keywords["enum"] = multiples
                return
    found.relaxed.append("multipleOf")
