"""llama.cpp's side of decode, through llama-cpp-python's low-level functions. The GGUF has the same shape and random weights."""

import os
import subprocess
import sys
import time

import gguf
import llama_cpp
import numpy as np
from serve import median, serve

threads = int(os.environ["OMP_NUM_THREADS"])
quantised_types = {"Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
paths, models = {}, {}


@llama_cpp.llama_log_callback
def silent(level, text, data):
    pass


llama_cpp.llama_log_set(silent, None)
llama_cpp.llama_backend_init()


def write_f32(path, s):
    """A Llama model with normal weights of standard deviation 0.02 and a tied output matrix."""
    random = np.random.default_rng(0)
    matrix = lambda rows, columns: (random.standard_normal((rows, columns), dtype=np.float32) * 0.02)
    writer = gguf.GGUFWriter(path + ".tmp", "llama")
    writer.add_name("random")
    writer.add_context_length(8192)
    writer.add_embedding_length(s["width"])
    writer.add_block_count(s["layers"])
    writer.add_feed_forward_length(s["mlpWidth"])
    writer.add_head_count(s["heads"])
    writer.add_head_count_kv(s["kvHeads"])
    writer.add_rope_dimension_count(s["headWidth"])
    writer.add_rope_freq_base(s["rotaryBase"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(s["vocabSize"])
    writer.add_file_type(llama_cpp.LLAMA_FTYPE_ALL_F32)
    # node-llama-cpp refuses a model without a vocabulary; no text is ever made of it here.
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    words += [f"\u2581w{i}" for i in range(s["vocabSize"] - len(words))]
    kind = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256 + [kind.NORMAL] * (len(words) - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_tensor("token_embd.weight", matrix(s["vocabSize"], s["width"]))
    writer.add_tensor("output_norm.weight", np.ones(s["width"], np.float32))
    query, key = s["heads"] * s["headWidth"], s["kvHeads"] * s["headWidth"]
    for layer in range(s["layers"]):
        at = f"blk.{layer}."
        for name, rows, columns in (
            ("attn_q", query, s["width"]),
            ("attn_k", key, s["width"]),
            ("attn_v", key, s["width"]),
            ("attn_output", s["width"], query),
            ("ffn_gate", s["mlpWidth"], s["width"]),
            ("ffn_up", s["mlpWidth"], s["width"]),
            ("ffn_down", s["width"], s["mlpWidth"]),
        ):
            writer.add_tensor(at + name + ".weight", matrix(rows, columns))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(at + name + ".weight", np.ones(s["width"], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(path + ".tmp", path)


def prepare(folder, shape, files):
    source = os.path.join(folder, "llama-135m-words-F32.gguf")
    if not os.path.exists(source):
        write_f32(source, shape)
    paths["F32"] = source
    for file in files:
        if file == "F32":
            continue
        paths[file] = os.path.join(folder, f"llama-135m-words-{file}.gguf")
        if not os.path.exists(paths[file]):
            parameters = llama_cpp.llama_model_quantize_default_params()
            parameters.nthread, parameters.ftype = threads, quantised_types[file]
            # The tied matrix too, which is read whole for every token.
            parameters.pure = True
            temporary = paths[file] + ".tmp"
            status = llama_cpp.llama_model_quantize(source.encode(), temporary.encode(), parameters)
            if status != 0:
                raise RuntimeError(f"llama_model_quantize({file}) returned {status}")
            os.replace(temporary, paths[file])
    return {file: os.path.getsize(path) for file, path in paths.items()}


def decode(context, tokens, position, last_only=False):
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position + i, 1, 0
        batch.logits[i] = 0 if last_only and i < len(tokens) - 1 else 1
    start = time.perf_counter()
    status = llama_cpp.llama_decode(context, batch)
    # Reading a logit waits for what is still under way.
    llama_cpp.llama_get_logits_ith(context, len(tokens) - 1)[0]
    elapsed = (time.perf_counter() - start) * 1000
    llama_cpp.llama_batch_free(batch)
    if status != 0:
        raise RuntimeError(f"llama_decode returned {status}")
    return elapsed


def works(file, extra):
    """Whether a token can be decoded, tried in a process of its own: some builds crash in the kernels for repacked weights (AMX)."""
    return subprocess.run([sys.executable, __file__, paths[file], str(int(extra))], capture_output=True).returncode == 0


def load(file, past, capacity):
    extra = works(file, True)
    context = open_context(paths[file], extra, capacity)
    decode(context, past, 0)
    models[file] = (context, len(past))
    return None if extra else "without repacked weights: this build of llama.cpp crashes with them"


def open_context(path, extra, capacity):
    parameters = llama_cpp.llama_model_default_params()
    parameters.use_extra_bufts = extra
    model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = capacity, 512, 512
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.no_perf = True
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise RuntimeError(f"no context for {path}")
    return context


def sample(file, tokens, calls):
    context, past = models[file]
    memory = llama_cpp.llama_get_memory(context)
    times = []
    for _ in range(calls):
        times.append(decode(context, tokens, past))
        llama_cpp.llama_memory_seq_rm(memory, 0, past, -1)
    return median(times)


def prefill(file, tokens):
    """Tokens behind an empty cache, logits of the last one alone. The cache holds nothing afterwards but what load put there."""
    context, past = models[file]
    memory = llama_cpp.llama_get_memory(context)
    llama_cpp.llama_memory_seq_rm(memory, 0, 0, -1)
    elapsed = decode(context, tokens, 0, last_only=True)
    llama_cpp.llama_memory_seq_rm(memory, 0, past, -1)
    return elapsed


if len(sys.argv) > 1:
    decode(open_context(sys.argv[1], sys.argv[2] == "1", 64), [1, 2, 3], 0)
    sys.exit(0)
serve({"prepare": prepare, "load": load, "sample": sample, "prefill": prefill})
