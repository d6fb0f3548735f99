// GPT-2 (Radford et al. 2019): layer norm first, learned positions, plain GELU MLP, biases everywhere, tied output matrix.
// Its weights are stored [in, out].
import type { HfConfig } from "../../../formats/hf-config.ts";
import type { DecoderConfig, DecoderOptions } from "../config.ts";
import { type Family, field, type KeyMapping, unsupported } from "./family.ts";

const activationNames: Record<string, DecoderOptions["activation"]> = {
  gelu_new: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
  gelu: "gelu",
  relu: "relu",
  silu: "silu",
};

export const gpt2: Family = {
  modelType: "gpt2",
  architecture: "GPT2LMHeadModel",
  // Causal-mask buffers of old uploads, and the output matrix that repeats the embedding.
  ignored: /(\.attn\.(bias|masked_bias)|^lm_head\.weight)$/,
  optionalPrefix: "transformer.",
  read(json: HfConfig): DecoderOptions {
    for (const setting of ["scale_attn_by_inverse_layer_idx"]) if (json[setting] === true) unsupported("gpt2", setting, true);
    if (json.scale_attn_weights === false) unsupported("gpt2", "scale_attn_weights", false);
    const width = field<number>(json, "n_embd", "number");
    const act = field<string>(json, "activation_function", "string", "gelu_new");
    const inner = json.n_inner;
    return {
      vocabSize: field(json, "vocab_size", "number"),
      width,
      layers: field(json, "n_layer", "number"),
      heads: field(json, "n_head", "number"),
      mlpWidth: typeof inner === "number" ? inner : 4 * width,
      contextLength: field(json, "n_positions", "number"),
      norm: "layer",
      normEpsilon: field(json, "layer_norm_epsilon", "number", 1e-5),
      position: "learned",
      qkvBias: true,
      outputBias: true,
      mlpBias: true,
      mlp: "plain",
      activation: activationNames[act] ?? unsupported("gpt2", "activation_function", act),
      tieEmbeddings: json.tie_word_embeddings !== false,
    };
  },
  write(config: DecoderConfig): HfConfig | undefined {
    const act = Object.entries(activationNames).find(([, value]) => value === config.activation)?.[0];
    if (!act) return undefined;
    return {
      architectures: ["GPT2LMHeadModel"],
      model_type: "gpt2",
      vocab_size: config.vocabSize,
      n_embd: config.width,
      n_layer: config.layers,
      n_head: config.heads,
      n_inner: config.mlpWidth === 4 * config.width ? null : config.mlpWidth,
      n_positions: config.contextLength,
      n_ctx: config.contextLength,
      activation_function: act,
      layer_norm_epsilon: config.normEpsilon,
      initializer_range: config.initStd,
      tie_word_embeddings: config.tieEmbeddings,
      attn_pdrop: 0,
      embd_pdrop: 0,
      resid_pdrop: 0,
      torch_dtype: "float32",
    };
  },
  keys(config: DecoderConfig): KeyMapping[] {
    const keys: KeyMapping[] = [
      { path: "embedding.tokens", key: "wte.weight" },
      { path: "embedding.positions", key: "wpe.weight" },
    ];
    for (let i = 0; i < config.layers; i++) {
      const [path, key] = [`layers.${i}`, `h.${i}`];
      const linear = (from: string, to: string): void => {
        keys.push(
          { path: `${path}.${from}.weight`, key: `${key}.${to}.weight`, transposed: true },
          { path: `${path}.${from}.bias`, key: `${key}.${to}.bias` },
        );
      };
      const norm = (from: string, to: string): void => {
        keys.push(
          { path: `${path}.${from}.scale`, key: `${key}.${to}.weight` },
          { path: `${path}.${from}.bias`, key: `${key}.${to}.bias` },
        );
      };
      norm("attentionNorm", "ln_1");
      linear("attention.qkv", "attn.c_attn");
      linear("attention.output", "attn.c_proj");
      norm("mlpNorm", "ln_2");
      linear("mlp.up", "mlp.c_fc");
      linear("mlp.down", "mlp.c_proj");
    }
    keys.push({ path: "norm.scale", key: "ln_f.weight" }, { path: "norm.bias", key: "ln_f.bias" });
    if (!config.tieEmbeddings) keys.push({ path: "head.weight", key: "lm_head.weight" });
    return keys;
  },
};
