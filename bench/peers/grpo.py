"""TRL's side of grpo: GRPOTrainer on the same weights, prompts and lengths. Its loop runs in a thread that waits before every step."""

import os
import tempfile
import threading
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
import trl
from datasets import Dataset
from serve import median, serve
from tokenizers import Tokenizer, models, pre_tokenizers

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
transformers.utils.logging.set_verbosity_error()
state = {}


def tokenizer_of(vocab_size):
    """Token i is written ti: prompts are ids, whatever the model's own tokenizer is."""
    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab_size)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="t2", pad_token="t0", padding_side="left")
    return fast


class Gate(transformers.TrainerCallback):
    def __init__(self):
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.times, self.logs = [], {}

    def on_step_begin(self, *_, **__):
        self.go.acquire()
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.times.append((time.perf_counter() - self.start) * 1000)
        self.done.release()

    def on_log(self, args, trainer_state, control, logs=None, **__):
        self.logs.update(logs or {})


def even_share(completions, completion_ids, **_):
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def load(folder, prompts, numGenerations, completionLength, learningRate, vocabSize):
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    gate = Gate()
    config = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=len(prompts) * numGenerations,
        num_generations=numGenerations,
        max_completion_length=completionLength,
        generation_kwargs={"min_new_tokens": completionLength},
        beta=0.0,
        learning_rate=learningRate,
        gradient_checkpointing=False,
        max_steps=1_000_000,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=even_share,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [" ".join(f"t{i}" for i in ids) for ids in prompts]}),
        processing_class=tokenizer_of(vocabSize),
        callbacks=[gate],
    )
    for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(callback)
    generated = []
    inner = model.generate

    def timed(*args, **kwargs):
        start = time.perf_counter()
        result = inner(*args, **kwargs)
        generated.append((time.perf_counter() - start) * 1000)
        return result

    model.generate = timed
    state.update(gate=gate, generated=generated, error=None)

    def work():
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        try:
            trainer.train()
        except BaseException as error:
            state["error"] = error
            gate.done.release()

    threading.Thread(target=work, daemon=True).start()
    return f"TRL {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"


def step(steps):
    gate, generated = state["gate"], state["generated"]
    del gate.times[:], generated[:]
    for _ in range(steps):
        gate.go.release()
        gate.done.acquire()
        if state["error"]:
            raise state["error"]
    # The metrics of a step are logged after its end.
    entropy = float(gate.logs.get("entropy", "nan"))
    return {"ms": median(gate.times), "entropy": entropy, "generate": median(generated) if generated else 0.0}


serve({"load": load, "step": step})
os._exit(0)
