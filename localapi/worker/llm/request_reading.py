"""Turn a request's text into the tokens that its model reads, and check its grammar.

This module knows templates and the tokenizer but no MLX, so it may run on a separate thread. Rust's tokenizers may be
used by several threads as long as no thread changes their settings, which none does here.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any

from localapi.worker.llm.constrained.grammar_trial import comes_to_an_end
from localapi.worker.llm.constrained.schema_grammar import GrammarRefused
from localapi.worker.llm.prompt import RENDER_SECONDS, PromptRefused, PromptWriter
from localapi.worker.llm.prompt_boundaries import boundaries
from localapi.worker.protocol import Answering, Chat, Complete, Detokenize, Lark, TextRequest, Tokenize

_PROBE = "   a  b   c \t\t\n\n \r\n\x01\x7f\u200b e\u0301 ẞ Ⅷ ﬁ 漢 \u1100\u1161\u11a8 𒀀 \ue000 🙂 .  "
_COMPOSED = 3
"""Factor by which a text can be longer, in bytes, before Unicode composes its characters
(https://unicode.org/faq/normalization)."""


class ContextExceeded(Exception):
    """The prompt is longer than the context."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens that the model reads."""

    tokens: list[int]
    text: str = ""
    """Text of the tokens, if the request needs it."""
    boundaries: list[int] = field(default_factory=list)
    """Lengths of prefixes that later prompts may share."""
    media: Any = None
    """Images and recordings of the text, if the tokens must still be made from all of them: `worker.vlm.senses.Media`.
    """
    sight: Any = None
    """Input of the model besides tokens: `worker.vlm.senses.Sight`."""


class RequestReader:
    """Reader of the requests to one model."""

    def __init__(
        self, tokenizer: Any, prompts: PromptWriter, *, name: str, context_length: int | None, needs_boundaries: bool
    ) -> None:
        """Create a reader from mlx-lm's TokenizerWrapper; `needs_boundaries` is as in `PrefixCache`."""
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._name = name
        self._context_length = context_length
        self._needs_boundaries = needs_boundaries
        self._token_bytes = longest_token(tokenizer)
        self._marks = tuple((number, str(token)) for number, token in tokenizer.added_tokens_decoder.items())

    def read(self, request: TextRequest, seconds: float = RENDER_SECONDS) -> Prompt:
        """Return the prompt. Raise PromptRefused, ContextExceeded and GrammarRefused.

        Raise TemplateTooSlow, which is a PromptRefused, if the chat template takes longer than `seconds`.
        """
        self.check_form(request)
        match request:
            case Chat():
                tokens = self._prompts.tokens(request, self._check_text, seconds=seconds)
                self.check_length(tokens)
                rendering = self._prompts.rendering(request, seconds=seconds) if self._needs_boundaries else None
                points = boundaries(rendering, rendering.messages, tokens) if rendering else []
                return Prompt(tokens, boundaries=points)
            case Complete():
                tokens = self._completion(request.prompt)
                return Prompt(tokens, self._text(tokens) if request.echo else "")
            case Tokenize(chat=Chat() as chat):
                return Prompt(self._prompts.tokens(chat, seconds=seconds))
            case Tokenize():
                return Prompt(self._tokenizer.encode(request.text or "", add_special_tokens=request.special))
            case Detokenize():
                self._check_numbers(request.tokens, "tokens")
                return Prompt(request.tokens, self._text(request.tokens))

    def _completion(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            self._check_text(prompt)
            prompt = list(self._tokenizer.encode(prompt))
        self._check_numbers(prompt, "prompt")
        if not prompt:
            raise PromptRefused("The prompt is empty.", "prompt")
        self.check_length(prompt)
        return prompt

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def _check_numbers(self, tokens: list[int], param: str) -> None:
        vocabulary = len(self._tokenizer)
        wrong = [token for token in tokens if token >= vocabulary]
        if wrong:
            raise PromptRefused(f"There is no token {wrong[0]}: this model's tokens are 0 to {vocabulary - 1}.", param)

    def _check_text(self, text: str) -> None:
        """Refuse a text that is too long however it is tokenized: tokenizing takes a second per million characters."""
        if self._token_bytes and self._context_length:
            size = len(text.encode("utf-8", "replace"))
            least = size // self._token_bytes
            if least >= self._context_length:
                raise ContextExceeded(self._too_long(f"at least {least}"))

    def check_form(self, request: TextRequest) -> None:
        """Raise GrammarRefused for a grammar that never ends."""
        form = request.form if isinstance(request, Answering) else None
        if isinstance(form, Lark) and not comes_to_an_end(form.text, self._marks):
            raise GrammarRefused("The grammar never ends: some rules only repeat. Give every rule a way to finish.")

    def check_length(self, tokens: list[int]) -> None:
        """Raise ContextExceeded for a prompt that exceeds the model's context."""
        if self._context_length is not None and len(tokens) >= self._context_length:
            raise ContextExceeded(self._too_long(str(len(tokens))))

    def _too_long(self, tokens: str) -> str:
        return f"The prompt has {tokens} tokens; {self._name}'s context is {self._context_length} tokens."


def longest_token(tokenizer: Any) -> int | None:
    """Return the maximum bytes of text that one token stands for; None if the tokenizer may drop text."""
    tokens = tokenizer.encode(_PROBE, add_special_tokens=False)
    text = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    composed = unicodedata.normalize("NFC", _PROBE)
    # Sentencepiece models may add a space in front, or drop one.
    kept = any(text in (f" {probe}", probe, probe[1:]) for probe in (_PROBE, composed))
    # A token that strips the whitespace around it stands for any amount of it.
    if not kept or any(token.lstrip or token.rstrip for token in tokenizer.added_tokens_decoder.values()):
        return None
    longest = max(len(name.encode("utf-8", "replace")) for name in tokenizer.get_vocab())
    return longest if text.endswith(_PROBE[1:]) else longest * _COMPOSED
