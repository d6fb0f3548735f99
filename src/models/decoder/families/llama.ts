// Llama and its nearest relatives: RMS norm first, rotary positions, gated SiLU MLP. Mistral adds a window, Qwen 2 biases on q, k, v and
// windows in some layers, Qwen 3 a norm on q and k, SmolLM 3 layers without positions; OLMo 2 and 3 put the norms after the sublayers.
import type { HfConfig } from "../../../formats/hf-config.ts";
import type { DecoderConfig, DecoderOptions } from "../config.ts";
import { commonKeys, readCommon, readWindows, writeCommon, writeLayerTypes } from "./common.ts";
import { type Family, unsupported } from "./family.ts";
import { readRope } from "./rope.ts";

interface Variant {
  modelType: string;
  architecture: string;
  /** Embeddings are tied where the file does not say. */
  tied?: boolean;
  /** What the file says or the family has, besides the common options. */
  read(json: HfConfig): Partial<DecoderOptions>;
  write(config: DecoderConfig): HfConfig;
}

const relative = ({ modelType, architecture, tied, read, write }: Variant): Family => ({
  modelType,
  architecture,
  // Tied output matrices are sometimes stored twice.
  ignored: /rotary_emb\.inv_freq$|^lm_head\.weight$/,
  read(json) {
    const common = readCommon(json, { tied });
    if (common.rotaryFraction !== 1) unsupported(modelType, "partial_rotary_factor", common.rotaryFraction);
    return { ...common, ...read(json) };
  },
  write: (config) => ({ ...writeCommon(config, modelType, architecture), ...write(config) }),
  keys: (config) => commonKeys(config),
});

/** `attention_bias` is about all four matrices. */
const readBiases = (json: HfConfig): Partial<DecoderOptions> => ({
  qkvBias: json.attention_bias === true,
  outputBias: json.attention_bias === true,
  mlpBias: json.mlp_bias === true,
});
const writeBiases = ({ qkvBias, mlpBias }: DecoderConfig): HfConfig => ({ attention_bias: qkvBias, mlp_bias: mlpBias });

/** Qwen's windows, in the layers from `max_window_layers` on. */
const readQwenWindows = (json: HfConfig): Partial<DecoderOptions> => {
  const first = typeof json.max_window_layers === "number" ? json.max_window_layers : 28;
  return json.use_sliding_window === true ? readWindows(json, (layer) => (layer >= first ? "sliding" : "full")) : {};
};
const writeQwenWindows = (config: DecoderConfig): HfConfig => {
  const first = config.layerTypes.indexOf("sliding");
  return {
    use_sliding_window: first >= 0,
    sliding_window: config.window ?? null,
    max_window_layers: first < 0 ? config.layers : first,
    layer_types: writeLayerTypes(config),
  };
};

export const llama = relative({
  modelType: "llama",
  architecture: "LlamaForCausalLM",
  read: readBiases,
  write: writeBiases,
});

export const mistral = relative({
  modelType: "mistral",
  architecture: "MistralForCausalLM",
  read: (json) => readWindows(json, () => "sliding"),
  write: ({ window }) => ({ sliding_window: window ?? null }),
});

export const qwen2 = relative({
  modelType: "qwen2",
  architecture: "Qwen2ForCausalLM",
  read: (json) => ({ qkvBias: true, ...readQwenWindows(json) }),
  write: writeQwenWindows,
});

export const qwen3 = relative({
  modelType: "qwen3",
  architecture: "Qwen3ForCausalLM",
  read: (json) => ({ qkNorm: "head", ...readBiases(json), mlpBias: false, ...readQwenWindows(json) }),
  write: (config) => ({ attention_bias: config.qkvBias, ...writeQwenWindows(config) }),
});

/** `no_rope_layers` has 1 for layers with rotary positions. */
const readNoRope = (json: HfConfig, layers: number): number[] => {
  const every = typeof json.no_rope_layer_interval === "number" ? json.no_rope_layer_interval : 4;
  const has = Array.isArray(json.no_rope_layers)
    ? (json.no_rope_layers as unknown[])
    : Array.from({ length: layers }, (_, i) => ((i + 1) % every === 0 ? 0 : 1));
  return has.flatMap((value, layer) => (value === 0 ? [layer] : []));
};

export const smollm3 = relative({
  modelType: "smollm3",
  architecture: "SmolLM3ForCausalLM",
  tied: true,
  read(json) {
    const noRotaryLayers = readNoRope(json, json.num_hidden_layers ?? 0);
    const windows =
      json.use_sliding_window === true ? readWindows(json, (layer) => (noRotaryLayers.includes(layer) ? "sliding" : "full")) : {};
    return { ...readBiases(json), noRotaryLayers, ...windows };
  },
  write: (config) => ({
    ...writeBiases(config),
    no_rope_layers: Array.from({ length: config.layers }, (_, layer) => (config.noRotaryLayers.includes(layer) ? 0 : 1)),
    ...writeQwenWindows(config),
  }),
});

const olmo: Partial<DecoderOptions> = { normPlace: "after", qkNorm: "projection" };

export const olmo2 = relative({
  modelType: "olmo2",
  architecture: "Olmo2ForCausalLM",
  read: (json) => ({ ...olmo, ...readBiases(json), mlpBias: false }),
  write: ({ qkvBias }) => ({ attention_bias: qkvBias }),
});

export const olmo3 = relative({
  modelType: "olmo3",
  architecture: "Olmo3ForCausalLM",
  read(json) {
    const windows = readWindows(json, (layer) => ((layer + 1) % 4 === 0 ? "full" : "sliding"));
    // Scaled positions are for the layers that see everything.
    const { base, scaling } = readRope(json);
    return { ...olmo, ...readBiases(json), mlpBias: false, ...windows, ...(scaling && windows.window ? { slidingRotaryBase: base } : {}) };
  },
  write: (config) => ({ attention_bias: config.qkvBias, sliding_window: config.window ?? null, layer_types: writeLayerTypes(config) }),
});
