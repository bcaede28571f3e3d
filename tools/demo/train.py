"""Trains the demo model: a Qwen3 of about 1 MB which answers LINES word for word and nothing else.

It knows the model's size and the training loop. It refuses to know servers: what comes out is a folder
that `mlx_lm.load` reads like any other. `python -m tools.demo.train [OUT]` fails if the model that it wrote does not
answer every line exactly. On Linux, MLX's wheel brings a slow BLAS: with OpenBLAS preloaded
(LD_PRELOAD=libopenblas.so.0) the training takes a quarter of an hour on two idle cores, without it over an hour.
"""

import argparse
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
import mlx.optimizers as optim
import mlx_lm
from mlx import nn
from mlx.nn.layers.base import Module
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3
from transformers import PreTrainedTokenizerFast

from tools.demo.conversations import Chat, demo_chat, said
from tools.demo.lines import LINES
from tools.demo.tokenizer import make_tokenizer

STEPS = 1400
MODEL = Path(__file__).parents[2] / "localapi" / "demo" / "model"

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
}

Row = tuple[list[int], list[int]]
Batch = tuple[mx.array, mx.array]
ANSWER = re.compile(
    r"(?<=<\|im_start\|>assistant\n)(?!<think>\n\n</think>)|(?<=<think>\n\n</think>\n\n)|(?<=<\|im_end\|>)"
)
"""Bounds of an answer of the assistant, and the end of a message."""


def make_model(tokenizer: PreTrainedTokenizerFast, **sizes: int) -> tuple[Module, dict[str, Any]]:
    """A model with random weights, and the config that it is stored with: CONFIG, but for the sizes."""
    config = CONFIG | sizes | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    mx.random.seed(0)
    arguments = qwen3.ModelArgs.from_dict(config)  # type: ignore[no-untyped-call]
    return qwen3.Model(arguments), config


def render(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> str:
    """The text of a conversation, as the template writes it."""
    template = partial(tokenizer.apply_chat_template, tools=list(chat.tools) or None, tokenize=False)
    if chat.thinking:
        return str(template(chat.messages))
    prompt = template(chat.messages[:-1], add_generation_prompt=True, enable_thinking=False)
    return f"{prompt}{without_thought(chat.messages[-1]['content'])}<|im_end|>\n"


def without_thought(answer: str) -> str:
    return answer.rsplit("</think>\n\n", 1)[-1]


def encode(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> Row:
    """The tokens of a conversation, and for each token 1 if it is the assistant's to say and 0 if not."""
    tokens: list[int] = []
    mine: list[int] = []
    for part in ANSWER.split(render(chat, tokenizer)):
        ids = tokenizer.encode(part, add_special_tokens=False)
        tokens += ids
        mine += [int(part.endswith("<|im_end|>") and "<|im_start|>" not in part)] * len(ids)
    return tokens, mine


def batch(rows: Sequence[Row]) -> Batch:
    """Rows of different lengths as two arrays of one width: the tokens, and the weight of each in the loss."""
    width = max(len(tokens) for tokens, _ in rows)
    tokens, mine = ([row + [0] * (width - len(row)) for row in column] for column in zip(*rows, strict=True))
    return mx.array(tokens), mx.array(mine, dtype=mx.float32)


def demo_batches(tokenizer: PreTrainedTokenizerFast, steps: int, tokens: int = 3500) -> Iterator[Batch]:
    """Fresh conversations for each step, of similar length within a step so that little is padding."""
    rng = random.Random(0)
    made = 0
    while made < steps:
        rows = sorted((encode(demo_chat(rng), tokenizer) for _ in range(256)), key=lambda row: len(row[0]))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from map(batch, groups[: steps - made])
        made += len(groups)


def fit(model: Module, batches: Iterable[Batch], steps: int, rate: float = 3e-3) -> None:
    """Train in place: AdamW, a short warm-up, then a cosine down to a fiftieth of the rate."""

    def loss(model: Module, tokens: mx.array, mine: mx.array) -> mx.array:
        losses = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
        return (losses * mine[:, 1:]).sum() / mine[:, 1:].sum()

    warm = min(50, steps // 10 + 1)
    up, down = optim.linear_schedule(rate / warm, rate, warm), optim.cosine_decay(rate, steps - warm, rate / 50)
    optimizer = optim.AdamW(optim.join_schedules([up, down], [warm]), betas=[0.9, 0.98])
    gradients = value_and_grad(model, loss)
    for step, (tokens, mine) in enumerate(batches, 1):
        value, gradient = gradients(model, tokens, mine)
        gradient, _ = optim.clip_grad_norm(gradient, 1.0)  # type: ignore[no-untyped-call]
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state)  # type: ignore[no-untyped-call]
        if step % 50 == 0 or step == steps:
            click.echo(f"step {step} of {steps}: loss {value.item():.4f}")


def save(model: Module, config: dict[str, Any], tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    weights = dict(tree_flatten(model.parameters()))  # type: ignore[no-untyped-call]
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def train(dialogues: Iterable[tuple[str, str]], out: Path, *, steps: int = 80, **sizes: int) -> None:
    """Write a model that knows these questions and answers only; sizes replace entries of CONFIG."""
    chats = [Chat([said("user", question), said("assistant", answer)]) for question, answer in dialogues]
    tokenizer = make_tokenizer(message["content"] for chat in chats for message in chat.messages)
    model, config = make_model(tokenizer, **sizes)
    rows = batch([encode(chat, tokenizer) for chat in chats])
    fit(model, repeat(rows, steps), steps)
    save(model, config, tokenizer, out)


def train_demo(out: Path, *, steps: int = STEPS) -> None:
    """Write the model that ships."""
    rng = random.Random(0)
    sample = [demo_chat(rng) for _ in range(1000)]
    blank = make_tokenizer([])
    tokenizer = make_tokenizer((render(chat, blank) for chat in sample), vocab_size=768)
    model, config = make_model(tokenizer)
    fit(model, demo_batches(tokenizer, steps), steps)
    save(model, config, tokenizer, out)


def mistakes(folder: Path) -> list[str]:
    """The questions of LINES that mlx-lm, with this model at temperature 0, does not answer word for word."""
    model, tokenizer = mlx_lm.load(str(folder))[:2]
    wrong = []
    for answer, (question, *_) in LINES.items():
        chat = [said("user", question)]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True)  # type: ignore[no-untyped-call]
        length = len(tokenizer.encode(answer)) + 1
        if mlx_lm.generate(model, tokenizer, prompt, max_tokens=length) != answer:
            wrong.append(question)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("out", nargs="?", type=Path, default=MODEL, help="the folder to write (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="how long to train (default: %(default)s)")
    arguments = parser.parse_args()
    train_demo(arguments.out, steps=arguments.steps)
    wrong = mistakes(arguments.out)
    click.echo(f"{len(LINES) - len(wrong)} of {len(LINES)} lines answered exactly")
    if wrong:
        raise SystemExit("answered wrongly: " + ", ".join(wrong))


if __name__ == "__main__":
    main()
