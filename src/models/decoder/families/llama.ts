// Llama and its nearest relatives: RMS norm first, rotary positions, gated SiLU MLP. Qwen 2 adds biases on q, k, v; Qwen 3 a norm on q and k.
import type { HfConfig } from "../../../formats/hf-config.ts";
import type { DecoderConfig, DecoderOptions } from "../config.ts";
import { type Family, field, type KeyMapping, unsupported } from "./family.ts";

const activationNames: Record<string, DecoderOptions["activation"]> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_new: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
  relu: "relu",
};

interface Variant {
  modelType: string;
  architecture: string;
  qkNorm: DecoderOptions["qkNorm"];
  /** Which biases the family has: set by config.attention_bias, or always on q, k, v. */
  biases: "option" | "qkv";
}

function relative({ modelType, architecture, qkNorm, biases }: Variant): Family {
  return {
    modelType,
    architecture,
    ignored: /rotary_emb\.inv_freq$/,
    read(json: HfConfig): DecoderOptions {
      const rope = (json.rope_parameters ?? {}) as { rope_type?: string; rope_theta?: number };
      const scaling = (json.rope_scaling ?? (rope.rope_type && rope.rope_type !== "default" ? rope : null)) as Record<
        string,
        unknown
      > | null;
      const kind = scaling?.rope_type ?? scaling?.type;
      if (scaling && kind !== "default") unsupported(modelType, "rope_scaling", scaling);
      if (json.use_sliding_window === true) unsupported(modelType, "use_sliding_window", true);
      const act = field<string>(json, "hidden_act", "string", "silu");
      const activation = activationNames[act] ?? unsupported(modelType, "hidden_act", act);
      const heads = field<number>(json, "num_attention_heads", "number");
      const width = field<number>(json, "hidden_size", "number");
      const attentionBias = biases === "option" && json.attention_bias === true;
      return {
        vocabSize: field(json, "vocab_size", "number"),
        width,
        layers: field(json, "num_hidden_layers", "number"),
        heads,
        kvHeads: field(json, "num_key_value_heads", "number", heads),
        headWidth: field(json, "head_dim", "number", width / heads),
        mlpWidth: field(json, "intermediate_size", "number"),
        contextLength: field(json, "max_position_embeddings", "number"),
        norm: "rms",
        normEpsilon: field(json, "rms_norm_eps", "number", 1e-6),
        position: "rotary",
        rotaryBase: json.rope_theta ?? rope.rope_theta ?? 10_000,
        qkNorm,
        qkvBias: biases === "qkv" || attentionBias,
        outputBias: attentionBias,
        mlpBias: json.mlp_bias === true,
        mlp: "gated",
        activation,
        tieEmbeddings: json.tie_word_embeddings === true,
      };
    },
    write(config: DecoderConfig): HfConfig | undefined {
      const expressible =
        config.norm === "rms" &&
        config.normPlace === "before" &&
        config.position === "rotary" &&
        config.rotaryFraction === 1 &&
        config.noRotaryLayers.length === 0 &&
        config.qkNorm === qkNorm &&
        config.mlp === "gated" &&
        config.embeddingScale === 1 &&
        config.attentionSoftCap === 0 &&
        config.logitSoftCap === 0 &&
        config.attentionScale === 1 / Math.sqrt(config.headWidth) &&
        config.layerTypes.every((kind) => kind === "full") &&
        (biases === "qkv" ? config.qkvBias && !config.outputBias && !config.mlpBias : config.qkvBias === config.outputBias);
      const act = Object.entries(activationNames).find(([name, value]) => value === config.activation && name !== "swish")?.[0];
      if (!expressible || !act) return undefined;
      return {
        architectures: [architecture],
        model_type: modelType,
        vocab_size: config.vocabSize,
        hidden_size: config.width,
        intermediate_size: config.mlpWidth,
        num_hidden_layers: config.layers,
        num_attention_heads: config.heads,
        num_key_value_heads: config.kvHeads,
        head_dim: config.headWidth,
        hidden_act: act,
        max_position_embeddings: config.contextLength,
        initializer_range: config.initStd,
        rms_norm_eps: config.normEpsilon,
        rope_theta: config.rotaryBase,
        ...(biases === "option" ? { attention_bias: config.qkvBias, mlp_bias: config.mlpBias } : {}),
        tie_word_embeddings: config.tieEmbeddings,
        torch_dtype: "float32",
      };
    },
    keys: llamaKeys,
  };
}

/** The key names that Llama introduced and most later families kept. */
export function llamaKeys(config: DecoderConfig): KeyMapping[] {
  const keys: KeyMapping[] = [{ path: "embedding.tokens", key: "model.embed_tokens.weight" }];
  for (let i = 0; i < config.layers; i++) {
    const [path, key] = [`layers.${i}`, `model.layers.${i}`];
    const linear = (from: string, part: string | undefined, to: string, bias: boolean): void => {
      keys.push({ path: `${path}.${from}.weight`, part, key: `${key}.${to}.weight` });
      if (bias) keys.push({ path: `${path}.${from}.bias`, part, key: `${key}.${to}.bias` });
    };
    keys.push({ path: `${path}.attentionNorm.scale`, key: `${key}.input_layernorm.weight` });
    for (const [part, name] of [
      ["query", "q"],
      ["key", "k"],
      ["value", "v"],
    ])
      linear("attention.qkv", part, `self_attn.${name}_proj`, config.qkvBias);
    linear("attention.output", undefined, "self_attn.o_proj", config.outputBias);
    if (config.qkNorm !== "none") {
      keys.push({ path: `${path}.attention.queryNorm.scale`, key: `${key}.self_attn.q_norm.weight` });
      keys.push({ path: `${path}.attention.keyNorm.scale`, key: `${key}.self_attn.k_norm.weight` });
    }
    keys.push({ path: `${path}.mlpNorm.scale`, key: `${key}.post_attention_layernorm.weight` });
    for (const part of ["gate", "up"]) linear("mlp.up", part, `mlp.${part}_proj`, config.mlpBias);
    linear("mlp.down", undefined, "mlp.down_proj", config.mlpBias);
  }
  keys.push({ path: "norm.scale", key: "model.norm.weight" });
  if (!config.tieEmbeddings) keys.push({ path: "head.weight", key: "lm_head.weight" });
  return keys;
}

export const llama = relative({ modelType: "llama", architecture: "LlamaForCausalLM", qkNorm: "none", biases: "option" });
export const qwen2 = relative({ modelType: "qwen2", architecture: "Qwen2ForCausalLM", qkNorm: "none", biases: "qkv" });
export const qwen3 = relative({ modelType: "qwen3", architecture: "Qwen3ForCausalLM", qkNorm: "head", biases: "option" });
