// DeepSeek-V3 (2024): latent attention, experts chosen by sigmoid scores with a bias and in groups, shared experts. Its modules for
// multi-token prediction stand behind the last layer and are no part of the decoder.
import type { HfConfig } from "../../../formats/hf-config.ts";
import type { DecoderOptions } from "../config.ts";
import { commonKeys, projExperts, readCommon, writeCommon } from "./common.ts";
import { type Family, field, unsupported } from "./family.ts";
import { yarnFactor } from "./rope.ts";

const [modelType, architecture] = ["deepseek_v3", "DeepseekV3ForCausalLM"];

/** Scores are multiplied with the square of YaRN's factor for all features. */
function readScale(json: HfConfig, width: number): number {
  const rope = (json.rope_scaling ?? json.rope_parameters ?? {}) as { factor?: unknown; mscale_all_dim?: unknown };
  const scale =
    typeof rope.mscale_all_dim === "number" && typeof rope.factor === "number" ? yarnFactor(rope.factor, rope.mscale_all_dim) : 1;
  return (scale * scale) / Math.sqrt(width);
}

export const deepseekV3: Family = {
  modelType,
  architecture,
  ignored: /rotary_emb\.inv_freq$|^lm_head\.weight$/,
  ignores: (key, { layers }) => Number(/^model\.layers\.(\d+)\./.exec(key)?.[1] ?? -1) >= layers,
  read(json): DecoderOptions {
    for (const [name, value] of [
      ["attention_bias", true],
      ["rope_interleave", false],
      ["scoring_func", "softmax"],
      ["topk_method", "greedy"],
    ] as const)
      if (json[name] === value) unsupported(modelType, name, value);
    const number = (name: string, fallback?: number): number => field<number>(json, name, "number", fallback);
    const common = readCommon({ ...json, head_dim: undefined });
    const [plainWidth, rotaryWidth, valueWidth] = [number("qk_nope_head_dim"), number("qk_rope_head_dim"), number("v_head_dim")];
    const queryRank = typeof json.q_lora_rank === "number" ? json.q_lora_rank : undefined;
    const inner = number("moe_intermediate_size");
    const { headWidth: _, rotaryFraction: __, ...options } = common;
    return {
      ...options,
      kvHeads: common.heads,
      attentionScale: readScale(json, plainWidth + rotaryWidth),
      latent: { ...(queryRank ? { queryRank } : {}), keyValueRank: number("kv_lora_rank"), plainWidth, rotaryWidth, valueWidth },
      experts: {
        count: number("n_routed_experts"),
        chosen: number("num_experts_per_tok"),
        width: inner,
        denseLayers: Array.from({ length: Math.min(number("first_k_dense_replace", 0), common.layers) }, (_value, layer) => layer),
        score: "sigmoid",
        normalise: json.norm_topk_prob !== false,
        scale: number("routed_scaling_factor", 1),
        selectionBias: true,
        groups: number("n_group", 1),
        chosenGroups: number("topk_group", 1),
        sharedWidth: number("n_shared_experts", 0) * inner,
      },
    };
  },
  write(config) {
    const { latent, experts } = config;
    if (!latent || !experts) return undefined;
    const { head_dim: _, partial_rotary_factor: __, ...common } = writeCommon(config, modelType, architecture);
    return {
      ...common,
      attention_bias: false,
      q_lora_rank: latent.queryRank ?? null,
      kv_lora_rank: latent.keyValueRank,
      qk_nope_head_dim: latent.plainWidth,
      qk_rope_head_dim: latent.rotaryWidth,
      v_head_dim: latent.valueWidth,
      n_routed_experts: experts.count,
      num_experts_per_tok: experts.chosen,
      moe_intermediate_size: experts.width,
      first_k_dense_replace: experts.denseLayers.length,
      scoring_func: experts.score,
      topk_method: "noaux_tc",
      norm_topk_prob: experts.normalise,
      routed_scaling_factor: experts.scale,
      n_group: experts.groups,
      topk_group: experts.chosenGroups,
      n_shared_experts: experts.sharedWidth / experts.width,
    };
  },
  keys: (config) => commonKeys(config, { experts: { ...projExperts, shared: "shared_experts" } }),
};
