"""The text of an answer: exact whatever the tokens are, nothing from a stop string on, nothing lost before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from localapi.worker.llm.detokenizer import Detokenizer
from localapi.worker.llm.output.stop_strings import AnswerText, StopStrings

if TYPE_CHECKING:
    from collections.abc import Sequence

SPECIAL = ["<|start|>", "<|end|>", "<|mark|>"]
TEXTS = ["Hello, world! 你好 Привет 🙂", "print( 'a' )\n\n\tx = [1 , 2]", "naïve café — 100 € 漢字 👩‍🚀"]


def _byte_level() -> Tokenizer:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    raw.train_from_iterator(TEXTS, trainer)
    raw.add_tokens(["<think>", "日本 token"])
    return raw


def _sentencepiece() -> Tokenizer:
    """Like Llama 2's and Gemma's: `▁` for a space, and a token for each byte."""
    pieces = [*SPECIAL, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"Helo,wrd!12.", "▁H", "▁H1", "\n", "\t"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    raw = Tokenizer(models.BPE(vocabulary, [("▁", "H")], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    raw.decoder = decoders.Sequence(parts)
    raw.add_special_tokens(SPECIAL)
    return raw


def _word_pieces() -> Tokenizer:
    """Neither of the two: the space is the decoder's, between any two tokens."""
    pieces = [*SPECIAL, "[UNK]", *"abcdefgh", *(f"##{c}" for c in "abcdefgh"), "你", "##好", "."]
    raw = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.decoder = decoders.WordPiece(cleanup=False)
    raw.add_special_tokens(SPECIAL)
    return raw


def _wrapped(raw: Tokenizer) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")


BYTE_LEVEL, SENTENCEPIECE, WORD_PIECES = _wrapped(_byte_level()), _wrapped(_sentencepiece()), _wrapped(_word_pieces())


def _streamed(tokenizer: Any, tokens: Sequence[int], **options: Any) -> str:
    answer = AnswerText(Detokenizer(tokenizer, **options).stream())
    return "".join([*map(answer.push, tokens), answer.finish()])


def _decoded(tokenizer: Any, tokens: Sequence[int]) -> str:
    kept = [token for token in tokens if token > 2]
    return str(tokenizer.decode(kept, clean_up_tokenization_spaces=False)).lstrip()


@given(st.lists(st.integers(0, len(BYTE_LEVEL) + 3), max_size=60))
def test_any_tokens_of_a_byte_level_vocabulary_stream_as_the_tokenizer_decodes_them(tokens: list[int]) -> None:
    assert _streamed(BYTE_LEVEL, tokens) == _decoded(BYTE_LEVEL, tokens)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_any_text_streams_back_whole_and_without_a_broken_character(text: str, sentencepiece: bool) -> None:
    tokenizer = SENTENCEPIECE if sentencepiece else BYTE_LEVEL
    text = text.replace("▁", "_")
    for special in SPECIAL:
        text = text.replace(special, "")
    answer = AnswerText(Detokenizer(tokenizer).stream())
    pieces = [*map(answer.push, tokenizer.encode(text, add_special_tokens=False)), answer.finish()]
    assert "".join(pieces) == text.lstrip()
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(0, len(SENTENCEPIECE) - 1), max_size=60))
def test_any_tokens_of_a_sentencepiece_vocabulary_stream_as_decoded_where_the_bytes_are_characters(
    tokens: list[int],
) -> None:
    expected = _decoded(SENTENCEPIECE, tokens)
    if "\ufffd" not in expected:
        assert _streamed(SENTENCEPIECE, tokens) == expected


@given(st.lists(st.integers(0, len(WORD_PIECES) - 1), max_size=120))
def test_any_tokens_of_another_vocabulary_stream_as_the_tokenizer_decodes_them(tokens: list[int]) -> None:
    assert _streamed(WORD_PIECES, tokens) == _decoded(WORD_PIECES, tokens)


def test_a_tokenizer_whose_decode_does_more_is_asked_and_not_read() -> None:
    class Newlines(PreTrainedTokenizerFast):  # type: ignore[misc]  # transformers is untyped
        def decode(self, *args: Any, **options: Any) -> str:
            return str(super().decode(*args, **options)).replace("\n", "<n>")

    tokenizer = Newlines(tokenizer_object=_byte_level(), eos_token="<|end|>")
    tokens = tokenizer.encode("a 🙂\nb" * 20, add_special_tokens=False)
    assert _streamed(tokenizer, tokens) == "a 🙂<n>b" * 20


def test_special_tokens_are_no_text_unless_they_are_markers() -> None:
    tokens = [0, *BYTE_LEVEL.encode("hi"), 2, 1]
    assert _streamed(BYTE_LEVEL, tokens) == "hi"
    assert _streamed(BYTE_LEVEL, tokens, markers=[2]) == "hi<|mark|>"


def test_an_unfinished_character_is_replaced_only_at_the_end() -> None:
    start, *rest = BYTE_LEVEL.encode("🙃")
    answer = AnswerText(Detokenizer(BYTE_LEVEL).stream())
    assert rest
    assert answer.push(start) == ""
    assert answer.finish() == "\ufffd"


def _first_completed(text: str, stop: Sequence[str]) -> str | None:
    """By definition: what comes before the stop string that is complete first, the longest where several are."""
    for end in range(1, len(text) + 1):
        if found := [s for s in stop if s and text[:end].endswith(s)]:
            return text[: end - max(map(len, found))]
    return None


_letters = st.text("ab\n", max_size=4)


@given(st.lists(_letters, max_size=20), st.lists(_letters, max_size=3))
def test_stop_strings_cut_where_the_whole_text_says_however_it_is_cut_into_pieces(
    pieces: list[str], stop: list[str]
) -> None:
    strings, given_text, stopped = StopStrings(stop), "", False
    for piece in pieces:
        text, stopped = strings.push(piece)
        given_text += text
        if stopped:
            break
    expected = _first_completed("".join(pieces), stop)
    assert stopped == (expected is not None)
    assert given_text + ("" if stopped else strings.finish()) == ("".join(pieces) if expected is None else expected)


def test_no_more_is_held_back_than_may_begin_a_stop_string() -> None:
    strings = StopStrings(["END."])
    assert strings.push("The EN") == ("The ", False)
    assert strings.push("d") == ("ENd", False)
    assert strings.push("EN") == ("", False)
    assert strings.finish() == "EN"


def test_long_stop_strings_cost_no_more_than_short_ones() -> None:
    strings = StopStrings(["x" * 1_000_000, "ab" * 500_000 + "c"])
    for _ in range(20_000):
        assert not strings.push("xxxxxab")[1]
