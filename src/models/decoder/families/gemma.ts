// Gemma (2024), Gemma 2 and Gemma 3 (2025): norms that multiply with 1 + w (stored is w), scaled embeddings, gated GELU, tied output
// matrix. Gemma 2 has norms on both sides of a sublayer, soft caps and windows in every second layer; Gemma 3 a norm on queries and keys
// instead of caps, windows in most layers, and a rotary base of its own in these.
import type { HfConfig } from "../../../formats/hf-config.ts";
import type { DecoderConfig, DecoderOptions } from "../config.ts";
import { commonKeys, readActivation, readCommon, readWindows, writeActivation, writeCommon, writeLayerTypes } from "./common.ts";
import { type Family, field, unsupported } from "./family.ts";
import { readRope } from "./rope.ts";

function gemmaFamily(
  modelType: string,
  architecture: string,
  read: (json: HfConfig) => Partial<DecoderOptions>,
  write: (config: DecoderConfig) => HfConfig,
): Family {
  return {
    modelType,
    architecture,
    ignored: /rotary_emb(_local)?\.inv_freq$|^lm_head\.weight$/,
    read(json) {
      if (json.use_bidirectional_attention === true) unsupported(modelType, "use_bidirectional_attention", true);
      const common = readCommon(json, { tied: true });
      const bias = json.attention_bias === true;
      // The first uploads say hidden_act "gelu" and mean the tanh form.
      const activation = typeof json.hidden_activation === "string" ? readActivation(json, "hidden_activation") : "geluTanh";
      return { ...common, activation, embeddingScale: Math.sqrt(common.width), qkvBias: bias, outputBias: bias, ...read(json) };
    },
    write(config) {
      const name = writeActivation(config);
      return {
        ...writeCommon(config, modelType, architecture),
        hidden_act: name,
        hidden_activation: name,
        attention_bias: config.qkvBias,
        ...write(config),
      };
    },
    keys: (config) => commonKeys(config, { normOffset: 1 }),
  };
}

const cap = (json: HfConfig, name: string): number => field<number>(json, name, "number", 0);
const readScale = (json: HfConfig): number => 1 / Math.sqrt(field<number>(json, "query_pre_attn_scalar", "number", 256));
/** The square of a square root, without its last digits. */
const writeScale = ({ attentionScale }: DecoderConfig): number => Number((1 / attentionScale ** 2).toPrecision(12));

export const gemma = gemmaFamily(
  "gemma",
  "GemmaForCausalLM",
  () => ({}),
  () => ({}),
);

export const gemma2 = gemmaFamily(
  "gemma2",
  "Gemma2ForCausalLM",
  (json) => ({
    normPlace: "both",
    attentionScale: readScale(json),
    attentionSoftCap: cap(json, "attn_logit_softcapping"),
    logitSoftCap: cap(json, "final_logit_softcapping"),
    ...readWindows(json, (layer) => (layer % 2 === 0 ? "sliding" : "full")),
  }),
  (config) => ({
    query_pre_attn_scalar: writeScale(config),
    attn_logit_softcapping: config.attentionSoftCap || null,
    final_logit_softcapping: config.logitSoftCap || null,
    sliding_window: config.window ?? null,
    layer_types: writeLayerTypes(config),
  }),
);

export const gemma3 = gemmaFamily(
  "gemma3_text",
  "Gemma3ForCausalLM",
  (json) => {
    const every = json.sliding_window_pattern ?? json._sliding_window_pattern ?? 6;
    const windows = readWindows(json, (layer) => ((layer + 1) % (every as number) === 0 ? "full" : "sliding"));
    const nested = (json.rope_parameters as { sliding_attention?: unknown } | null | undefined)?.sliding_attention;
    const local = readRope({ ...json, rope_theta: undefined, rope_scaling: undefined }, "sliding_attention");
    const slidingRotaryBase = nested ? local.base : field<number>(json, "rope_local_base_freq", "number", 10_000);
    return {
      normPlace: "both",
      qkNorm: "head",
      rotaryBase: readRope(json, "full_attention", 1_000_000).base,
      attentionScale: readScale(json),
      attentionSoftCap: cap(json, "attn_logit_softcapping"),
      logitSoftCap: cap(json, "final_logit_softcapping"),
      ...windows,
      ...(windows.window ? { slidingRotaryBase } : {}),
    };
  },
  (config) => ({
    query_pre_attn_scalar: writeScale(config),
    attn_logit_softcapping: config.attentionSoftCap || null,
    final_logit_softcapping: config.logitSoftCap || null,
    rope_local_base_freq: config.slidingRotaryBase,
    sliding_window: config.window ?? null,
    layer_types: writeLayerTypes(config),
  }),
);
