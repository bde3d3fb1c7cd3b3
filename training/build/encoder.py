"""A transformer that reads a request in order: the first layers of multilingual-e5-small, fine-tuned on rated requests.

Needs the `encoder` extra (torch); nothing that runs imports this. Its answers are two log odds, that the simple and
that the moderate tier suffices, of the mean of the last layer over the tokens: an embedding and a regression, as in the
small model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import BertConfig, BertModel

from router.classifier.features import Encoder, Order, window
from training.build import e5, vocabulary
from training.build.arrays import Array, Ints
from training.build.embedding import HEAD_CHARS, TAIL_CHARS
from training.build.encoder_graph import EPSILON, N_HEADS

HEAD_TOKENS = 176
TAIL_TOKENS = 78
"""How much of a text is read: all of nine in ten. 160 in all rank left-out requests .006 worse, 96 .02."""

PASSES = 3
BATCH = 64
LEARNING_RATE = 7e-5
WARM_UP = 0.06
DROPOUT = 0.1

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Base:
    """What is fine-tuned: a sentencepiece model; the file's row of each of its ids, and of padding, beginning and end
    after them; the file's tensors.
    """

    tokenizer: bytes
    rows: list[int]
    tensors: Mapping[str, e5.Raw]

    @classmethod
    def of(cls, texts: list[str]) -> Base:
        """With a vocabulary that serves `texts`. Raises ModuleNotFoundError without the `encoder` extra."""
        path = e5.file()
        tokenizer, rows = vocabulary.of_base(path, [window(text, HEAD_CHARS, TAIL_CHARS) for text in texts])
        return cls(tokenizer, [*rows, e5.PAD, e5.BEGIN, e5.END], e5.tensors(path))

    @property
    def pad_id(self) -> int:
        """The id that fills up a batch."""
        return len(self.rows) - 3

    @property
    def order(self) -> Order:
        """How the runtime reads a text for it."""
        return Order(HEAD_TOKENS, TAIL_TOKENS, self.pad_id + 1, self.pad_id + 2)

    def ids(self, texts: list[str]) -> list[Ints]:
        """The runtime's own ids of each text, int64 [n_tokens]."""
        encoder = Encoder(self.tokenizer, head_chars=HEAD_CHARS, tail_chars=TAIL_CHARS, order=self.order)
        return [encoder.encode(text).ids for text in texts]


class Transformer(nn.Module):
    """The first `n_layers` of multilingual-e5-small, and a linear head."""

    def __init__(self, base: Base, n_layers: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.pad_id = base.pad_id
        config = BertConfig(
            vocab_size=len(base.rows),
            hidden_size=e5.DIMENSIONS,
            num_hidden_layers=n_layers,
            num_attention_heads=N_HEADS,
            intermediate_size=4 * e5.DIMENSIONS,
            layer_norm_eps=EPSILON,
            hidden_dropout_prob=DROPOUT,
            attention_probs_dropout_prob=DROPOUT,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        weights = e5.weights(base.tensors, base.rows, n_layers)
        self.bert.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        self.bert.embeddings.word_embeddings.requires_grad_(False)  # half of the parameters, and they gain nothing
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(config.hidden_size, 2)
        self.to(DEVICE)

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """float32 [n_texts, n_dimensions] of padded ids [n_texts, n_tokens]."""
        mask = ids != self.pad_id
        last = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        weights = mask.unsqueeze(-1).to(last.dtype)
        return (last * weights).sum(1) / weights.sum(1).clamp(min=1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Log odds, float32 [n_texts, 2]."""
        out: torch.Tensor = self.head(self.dropout(self.vectors(ids)))
        return out

    def scores(self, ids: list[Ints]) -> Array:
        """Log odds, float64 [n_texts, 2]."""
        with torch.no_grad():
            x = torch.from_numpy(vectors(self, ids)).to(DEVICE)
            return np.asarray(self.head(x).double().cpu().numpy())


def fine_tune(
    model: Transformer,
    ids: list[Ints],
    wanted: Array,
    weights: Array,
    checkpoint: Path,
    progress: Progress,
    seed: int = 0,
) -> None:
    """PASSES over the rows; `wanted` are log odds [n, 2].

    The state is kept in `checkpoint` every five hundred steps, and taken up there where a run was stopped. On a GPU
    products are taken in bfloat16.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    decays = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01}]
    optimizer = torch.optim.AdamW([*decays, {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}])
    chance = np.random.default_rng(seed)
    plan = [batch for _ in range(PASSES) for batch in _batches(ids, chance)]
    begin = 0
    if checkpoint.is_file():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location=DEVICE)
        begin = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    model.train()
    for step in range(begin, len(plan)):
        at = plan[step]
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / (WARM_UP * len(plan))) * max(0.02, 1 - step / len(plan))
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            answer = model(_padded([ids[i] for i in at], model.pad_id)).float()
        truth = torch.tensor(wanted[at], dtype=torch.float32, device=DEVICE)
        losses = nn.functional.smooth_l1_loss(answer, truth, reduction="none").mean(1)
        loss = (losses * torch.tensor(weights[at], dtype=torch.float32, device=DEVICE)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 25 == 0:
            progress(f"step {step} of {len(plan)}, loss {loss.item():.3f}")
        if step % 500 == 499 or step == len(plan) - 1:
            _keep(checkpoint, {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    model.eval()


def vectors(model: Transformer, ids: list[Ints], size: int = 64) -> npt.NDArray[np.float32]:
    """float32 [n_texts, n_dimensions]."""
    model.eval()
    out = np.zeros((len(ids), model.head.in_features), np.float32)
    order = np.argsort([len(row) for row in ids], kind="stable")
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        for start in range(0, len(order), size):
            at = order[start : start + size]
            out[at] = model.vectors(_padded([ids[i] for i in at], model.pad_id)).cpu().numpy()
    return out


def _keep(checkpoint: Path, state: dict[str, Any]) -> None:
    """Whole or not at all."""
    part = checkpoint.with_suffix(".part")
    torch.save(state, part)
    part.replace(checkpoint)


def _padded(rows: list[Ints], pad_id: int) -> torch.Tensor:
    out = np.full((len(rows), max(1, *map(len, rows))), pad_id)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
    return torch.from_numpy(out).to(DEVICE)


def _batches(ids: list[Ints], chance: np.random.Generator) -> Iterator[Ints]:
    """Every row once, in batches of texts of about the same length, in random order."""
    order, pool = chance.permutation(len(ids)), BATCH * 40
    batches = []
    for start in range(0, len(order), pool):
        by_length = sorted(order[start : start + pool], key=lambda i: len(ids[i]))
        batches += [np.array(by_length[k : k + BATCH]) for k in range(0, len(by_length), BATCH)]
    chance.shuffle(batches)
    yield from batches
