"""Chat templates of every kind that would take all time or memory, through transformers as models use them."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import pytest
from mlx_lm.tokenizer_utils import load as load_tokenizer

from localapi.worker.llm.bounded_template import MAX_CHARACTERS
from localapi.worker.llm.prompt import PromptRefused, PromptWriter, TemplateTooSlow
from localapi.worker.protocol import Chat, Message

if TYPE_CHECKING:
    from pathlib import Path

HI = Message("user", "hi")


@pytest.fixture
def rendered(tiny_model: Path) -> Any:
    """Renders a template, as the prompt of one message."""
    tokenizer = load_tokenizer(tiny_model)

    def render(template: str, message: Message = HI, **options: Any) -> str:
        tokenizer._tokenizer.chat_template = template
        tokenizer.has_chat_template = True
        request = Chat(id=1, messages=[message], template_options=options)
        return str(tokenizer.decode(PromptWriter(tokenizer).tokens(request, seconds=2)))

    return render


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for a in range(99999) %}{% set b = range(99999) | map('string') | list %}{% endfor %}",
        "{% for a in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
        "{% for a in range(99999) %}{% set b %}{% for c in range(99999) %}{% endfor %}{% endset %}{% endfor %}",
        "{% for a in range(99999) if range(99999) | list | length < 0 %}{% endfor %}",
        "{{ lipsum(n=999999999) }}",
    ],
)
def test_what_does_not_end_is_given_up(rendered: Any, template: str) -> None:
    with pytest.raises(TemplateTooSlow) as caught:
        rendered(template)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 99999999999 }}",
        "{{ messages[0].content * 99999999999 }}",
        "{{ 99999999999 * 'x' }}",
        "{% set a = [0] * 99999999999 %}",
        "{{ 9 ** 99999999999 }}",
        "{% set ns = namespace(a=9) %}{% for i in range(99) %}{% set ns.a = ns.a * ns.a %}{% endfor %}",
        "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{{ '%99999999999d' % 1 }}",
        "{{ '%*d' % (99999999999, 1) }}",
        "{{ '{:>99999999999}'.format(1) }}",
        "{{ '{:>2000000000}'.format('x') }}",
        "{{ '{0:>{1}}'.format('x', 2000000000) }}",
        "{{ '{a:2000000000}'.format_map({'a': 'x'}) }}",
        "{{ '%2000000000s' | format('x') }}",
        "{{ '%*d' | format(2000000000, 5) }}",
        "{{ '{:>{w}}'.format(1, w=99999999999) }}",
        "{{ 'x'.ljust(99999999999) }}",
        "{{ 'x'.center(width) }}",
        "{{ 'x' | center(99999999999) }}",
        "{{ 'x\n' | indent(99999999999) }}",
        "{{ 'x' | list | batch(99999999999, 1) | list }}",
        "{% set a = 'x' * 9999999 %}{{ a.replace('x', a) }}",
        "{% set a = 'x' * 9999999 %}{{ a.join([a, a, a, a]) }}",
        "{% set a = 'x' * 9999999 %}{{ a }}{{ a }}{{ a }}{{ a }}",
        "{{ ('x' * 99999) | replace('x', 'x' * 99999) }}",
        "{{ (['x'] * 99999) | join('x' * 99999) }}",
        "{{ ([['x' * 99] * 99999] * 999) | tojson }}",
        "{{ ([['x' * 99] * 99999] * 999) | string | length }}",
        "{{ [['x' * 99] * 99999] * 999 }}",
        "{{ 'a' ~ [['x' * 99] * 99999] * 999 }}",
        "{{ {'a': ([['x' * 99] * 99999] * 999)} | pprint }}",
        "{{ ([[['x' * 99] * 99999] * 999]) | map('string') | list | length }}",
        "{% set a = 'x' * 9999999 %}{% set b %}{% for i in range(99) %}{{ a }}{% endfor %}{% endset %}",
        "{% for a in range(99999) %}" + "x" * 1000 + "{% endfor %}",
    ],
)
def test_what_would_fill_the_memory_is_refused(rendered: Any, template: str) -> None:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PromptRefused, match="template"):
        rendered(template, width=99999999999)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 1_000_000  # kilobytes on Linux


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ '-' * 8 ~ messages[0].content ~ 5 }}", "--------hi5"),
        ("{{ '%s has %d%% of 1000000' % ('x', 50) }}", "x has 50% of 1000000"),
        ("{{ '* %s' % 1000000 }}", "* 1000000"),
        ("{{ '{} of {:>8}'.format(1000000, 'x') }}", "1000000 of        x"),
        ("{{ 1000000 | round }} {{ 2 ** 10 }} {{ 5 * 5 }} {{ ([1] + [2]) | join(',') }}", "1000000 1024 25 1,2"),
        ("{{ 'ab'.replace('b', 'c') | center(4) | indent(2) }}", " ac "),
        ("{% set x %}a{% endset %}{% macro m() %}b{% endmacro %}{{ x ~ m() }}", "ab"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}]'),
        ("{{ '%s' | format(1) }}{{ 'aXb' | replace('X', '-') }}{{ [1, [2]] }}{{ none }}", "1a-b[1, [2]]None"),
        ("{{ {'a': [1, true]} | string }}", "{'a': [1, True]}"),
        ("{% generation %}a{% endgeneration %}", "a"),
    ],
)
def test_what_is_small_is_rendered_as_ever(rendered: Any, template: str, text: str) -> None:
    assert rendered(template) == text


def test_a_long_message_is_no_template_that_is_too_large(rendered: Any) -> None:
    long = "word " * 100_000
    assert len(long) < MAX_CHARACTERS
    assert rendered("{{ messages[0].content }}", Message("user", long)).startswith("word word")


def test_an_error_does_not_repeat_the_whole_conversation(rendered: Any) -> None:
    with pytest.raises(PromptRefused) as caught:
        rendered("{{ raise_exception(messages[0].content) }}", Message("user", "word " * 10_000))
    assert len(str(caught.value)) < 1000
