// The config.json that a GGUF file's metadata stands for. Keys: gguf's constants; meanings: how llama.cpp reads them.
import { FormatError } from "../../base/errors.ts";
import type { GgufSource } from "../../formats/gguf.ts";
import type { GgufMetadataEntry, GgufValue } from "../../formats/gguf-header.ts";
import type { HfConfig } from "../../formats/hf-config.ts";
import { ggufArchitecture } from "./gguf-names.ts";

/** What of a file the configuration is read from. */
export type GgufDescription = Pick<GgufSource, "path" | "entries" | "value" | "read"> & {
  readonly metadata: ReadonlyMap<string, Pick<GgufMetadataEntry, "type">>;
};

/** @throws FormatError for architectures that are not known and for keys that are missing or of another type. */
export function ggufHfConfig(source: GgufDescription): HfConfig {
  const architecture = ggufArchitecture(source);
  const keys = new Keys(source, architecture.name);
  // Loops run over these: no file has more layers than tensors, or experts than the largest models by far.
  keys.bound("block_count", source.entries.size);
  keys.bound("expert_count", 4096);
  const vocabulary = source.entries.get("token_embd.weight");
  if (vocabulary === undefined) {
    throw new FormatError(`${source.path}: expected a tensor token_embd.weight, got none`, {
      hint: Number(source.value("split.count") ?? 1) > 1 ? "Name the first part of a split model." : "The file holds no model.",
    });
  }
  const common: HfConfig = {
    model_type: architecture.modelType,
    vocab_size: vocabulary.shape[0],
    bos_token_id: keys.optional("tokenizer.ggml.bos_token_id"),
    eos_token_id: endTokens(keys),
    pad_token_id: keys.optional("tokenizer.ggml.padding_token_id"),
    torch_dtype: "float32",
  };
  if (architecture.modelType === "gpt2") return { ...common, ...gpt2Config(keys) };
  const heads = keys.number("attention.head_count");
  const width = keys.number("embedding_length");
  const headWidth = keys.optional("attention.key_length") ?? width / heads;
  if (keys.optional("attention.value_length", headWidth) !== headWidth) {
    throw new FormatError(`${source.path}: expected keys and values of one width, got ${headWidth} and another`, {
      hint: "This kind of attention is not supported.",
    });
  }
  const rotary = keys.optional("rope.dimension_count", headWidth) as number;
  return {
    ...common,
    architectures: [],
    hidden_size: width,
    intermediate_size: keys.optional("feed_forward_length", 0) || keys.number("expert_feed_forward_length"),
    num_hidden_layers: keys.number("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: keys.optional("attention.head_count_kv", heads),
    head_dim: headWidth,
    max_position_embeddings: keys.number("context_length"),
    rms_norm_eps: keys.number("attention.layer_norm_rms_epsilon"),
    rope_theta: keys.optional("rope.freq_base", 10_000),
    rope_scaling: ropeScaling(keys, source, rotary),
    ...(rotary === headWidth ? {} : { partial_rotary_factor: rotary / headWidth }),
    hidden_act: "silu",
    attention_bias: source.entries.has("blk.0.attn_q.bias"),
    mlp_bias: source.entries.has("blk.0.ffn_up.bias"),
    tie_word_embeddings: !source.entries.has("output.weight"),
    ...particulars(architecture.modelType, keys, { width, heads, headWidth }),
  };
}

/** What one architecture has and others have not. */
function particulars(
  modelType: string,
  keys: Keys,
  { width, heads, headWidth }: { width: number; heads: number; headWidth: number },
): HfConfig {
  const layers = keys.number("block_count");
  const window = keys.optional("attention.sliding_window");
  switch (modelType) {
    case "gemma":
      return { hidden_act: "gelu_pytorch_tanh", hidden_activation: "gelu_pytorch_tanh" };
    case "gemma2":
    case "gemma3_text": {
      const isGemma3 = modelType === "gemma3_text";
      // The largest of each scale by the width per head; nothing in older files says so.
      const isLargest = layers === (isGemma3 ? 62 : 46);
      const pattern = keys.optional("attention.sliding_window_pattern") ?? 6;
      return {
        hidden_act: "gelu_pytorch_tanh",
        hidden_activation: "gelu_pytorch_tanh",
        query_pre_attn_scalar: isLargest ? width / heads : headWidth,
        attn_logit_softcapping: keys.optional("attn_logit_softcapping") ?? null,
        final_logit_softcapping: keys.optional("final_logit_softcapping") ?? null,
        sliding_window: window ?? (isGemma3 ? 1024 : 4096),
        ...(isGemma3
          ? {
              rope_local_base_freq: keys.optional("rope.freq_base_swa", 10_000),
              sliding_window_pattern: pattern,
              layer_types: Array.from({ length: layers }, (_, i) => ((i + 1) % pattern === 0 ? "full_attention" : "sliding_attention")),
            }
          : {}),
      };
    }
    case "phi3":
      return {
        ...(window ? { sliding_window: window } : {}),
        original_max_position_embeddings: keys.optional("rope.scaling.original_context_length"),
      };
    case "smollm3":
      return { no_rope_layers: Array.from({ length: layers }, (_, i) => ((i + 1) % 4 === 0 ? 0 : 1)) };
    case "mixtral":
      return { num_local_experts: keys.number("expert_count"), num_experts_per_tok: keys.number("expert_used_count") };
    case "qwen2_moe":
    case "qwen3_moe":
      return {
        num_experts: keys.number("expert_count"),
        num_experts_per_tok: keys.number("expert_used_count"),
        moe_intermediate_size: keys.number("expert_feed_forward_length"),
        norm_topk_prob: modelType === "qwen3_moe",
        mlp_only_layers: Array.from({ length: layers }, (_, i) => i).filter((i) => !keys.hasTensor(`blk.${i}.ffn_gate_inp.weight`)),
        ...(modelType === "qwen2_moe" ? { shared_expert_intermediate_size: keys.number("expert_shared_feed_forward_length") } : {}),
      };
    default:
      return {};
  }
}

function gpt2Config(keys: Keys): HfConfig {
  return {
    n_embd: keys.number("embedding_length"),
    n_layer: keys.number("block_count"),
    n_head: keys.number("attention.head_count"),
    n_inner: keys.number("feed_forward_length"),
    n_positions: keys.number("context_length"),
    layer_norm_epsilon: keys.number("attention.layer_norm_epsilon"),
    activation_function: "gelu_new",
    tie_word_embeddings: true,
  };
}

function endTokens(keys: Keys): HfConfig["eos_token_id"] {
  const ids = ["eos", "eot"].map((role) => keys.optional(`tokenizer.ggml.${role}_token_id`)).filter((id) => id !== undefined);
  const distinct = [...new Set(ids)];
  return distinct.length > 1 ? distinct : distinct[0];
}

function ropeScaling(keys: Keys, source: GgufDescription, rotary: number): Record<string, unknown> | null {
  const factors = (name: string): number[] | undefined =>
    source.entries.has(name) ? Array.from(source.read(name).data as Float32Array, shortest) : undefined;
  const originalLength = keys.optional("rope.scaling.original_context_length");
  const attentionFactor = keys.optional("rope.scaling.attn_factor");
  const [short, long] = [factors("rope_factors_short.weight"), factors("rope_factors_long.weight")];
  if (short && long) {
    return {
      rope_type: "longrope",
      short_factor: short,
      long_factor: long,
      original_max_position_embeddings: originalLength,
      ...(attentionFactor ? { attention_factor: attentionFactor } : {}),
    };
  }
  const divisors = factors("rope_freqs.weight");
  if (divisors)
    return llama3Scaling(divisors, keys.optional("rope.freq_base", 10_000) as number, rotary) ?? { rope_type: "divisors", divisors };
  const factor = keys.optional("rope.scaling.factor") ?? keys.optional("rope.scale_linear");
  const type = keys.text("rope.scaling.type") ?? (factor === undefined ? "none" : "linear");
  if (type === "none" || factor === undefined || factor === 0) return null;
  if (type === "linear") return { rope_type: "linear", factor };
  if (type === "yarn") {
    const named = (key: string, name: string): Record<string, number> => {
      const value = keys.optional(`rope.scaling.yarn_${key}`);
      return value === undefined ? {} : { [name]: value };
    };
    return {
      rope_type: "yarn",
      factor,
      original_max_position_embeddings: originalLength,
      ...named("beta_fast", "beta_fast"),
      ...named("beta_slow", "beta_slow"),
      ...(attentionFactor ? { attention_factor: attentionFactor } : {}),
    };
  }
  throw new FormatError(`${source.path}: expected rope.scaling.type none, linear, yarn or longrope, got "${type}"`, {
    hint: "This scaling is not supported.",
  });
}

/**
 * The settings of Llama 3.1's scaling that give these divisors, or undefined. Files hold only the outcome; with the factors 1 and 4 that
 * every published model has, one divisor between the extremes tells the original length.
 */
export function llama3Scaling(divisors: readonly number[], base: number, rotary: number): Record<string, unknown> | undefined {
  const factor = Math.max(...divisors);
  const [low, high] = [1, 4];
  const frequency = (i: number): number => base ** ((-2 * i) / rotary);
  const between = divisors.findIndex((divisor) => divisor > 1.001 && divisor < factor * 0.999);
  if (between < 0 || divisors.length !== rotary / 2) return undefined;
  const keptOf = (divisor: number): number => (1 / divisor - 1 / factor) / (1 - 1 / factor);
  const turns = low + keptOf(divisors[between]) * (high - low);
  const originalLength = Math.round((turns * 2 * Math.PI) / frequency(between));
  const fits = divisors.every((divisor, i) => {
    const kept = Math.min(1, Math.max(0, ((originalLength * frequency(i)) / (2 * Math.PI) - low) / (high - low)));
    return Math.abs(1 / (kept + (1 - kept) / factor) / divisor - 1) < 1e-4;
  });
  if (!fits) return undefined;
  return {
    rope_type: "llama3",
    factor: Math.round(factor * 1000) / 1000,
    low_freq_factor: low,
    high_freq_factor: high,
    original_max_position_embeddings: originalLength,
  };
}

/** Metadata by key; those of the architecture without its prefix. */
class Keys {
  private readonly source: GgufDescription;
  private readonly prefix: string;

  constructor(source: GgufDescription, prefix: string) {
    this.source = source;
    this.prefix = prefix;
  }

  number(key: string): number {
    const value = this.optional(key);
    if (value === undefined) {
      throw new FormatError(`${this.source.path}: expected a number at ${this.prefix}.${key}, got nothing`, {
        hint: "The metadata do not describe this architecture fully.",
      });
    }
    return value;
  }

  /** A number, or the one that all entries of an array have. */
  optional(key: string, fallback?: number): number | undefined {
    const value = this.find(key);
    if (value === undefined) return fallback;
    if (typeof value === "number") return this.source.metadata.get(this.fullName(key))?.type === "f32" ? shortest(value) : value;
    if (typeof value === "object" && value.values.length > 0 && typeof value.values[0] === "number") {
      const numbers = Array.from(value.values as ArrayLike<number>);
      if (numbers.every((number) => number === numbers[0])) return numbers[0];
      if (key === "attention.sliding_window_pattern") return numbers.indexOf(0) + 1 || numbers.length + 1;
    }
    const got = typeof value === "object" ? `an array of ${value.values.length} that differ` : JSON.stringify(String(value));
    throw new FormatError(`${this.source.path}: expected one number at ${key}, got ${got}`, {
      hint: "Layers of different sizes are not supported.",
    });
  }

  bound(key: string, most: number): void {
    const value = this.optional(key, 0) as number;
    if (!(Number.isInteger(value) && value >= 0 && value <= most)) {
      throw new FormatError(`${this.source.path}: expected at most ${most} at ${this.prefix}.${key}, got ${value}`, {
        hint: "The metadata and the tensors do not belong together.",
      });
    }
  }

  hasTensor(name: string): boolean {
    return this.source.entries.has(name);
  }

  text(key: string): string | undefined {
    const value = this.find(key);
    return typeof value === "string" ? value : undefined;
  }

  private find(key: string): GgufValue | undefined {
    return this.source.value(this.fullName(key));
  }

  private fullName(key: string): string {
    return key.startsWith("tokenizer.") ? key : `${this.prefix}.${key}`;
  }
}

/** The shortest decimal of a float32: 1e-6 rather than 9.999999974752427e-7. */
function shortest(value: number): number {
  for (let digits = 6; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === value) return rounded;
  }
  return value;
}
