"""Hugging Face's side of bpe."""

import json
import os
import time

from serve import serve
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

state = {}


def fresh():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=state["vocab_size"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(state["texts"], trainer)
    return tokenizer


def load(texts, vocab_size, tokenizer):
    state.update(texts=texts, vocab_size=vocab_size, ours=Tokenizer.from_str(tokenizer))
    return json.loads(fresh().to_str())["model"]["merges"]


def timed(parallel, run):
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if parallel else "false"
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def encode_all():
    return state["ours"].encode_batch_fast(state["texts"], add_special_tokens=False)


serve({
    "load": load,
    "count": lambda: sum(len(encoding.ids) for encoding in encode_all()),
    "train": lambda parallel: timed(parallel, fresh),
    "encode": lambda parallel: timed(parallel, encode_all),
})
