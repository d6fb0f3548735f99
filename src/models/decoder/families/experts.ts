// Families with experts in place of MLPs: Mixtral (Jiang et al. 2024), Qwen 2 MoE with a shared expert, Qwen 3 MoE.
import type { HfConfig } from "../../../formats/hf-config.ts";
import type { DecoderConfig, DecoderOptions } from "../config.ts";
import { commonKeys, type ExpertNames, projExperts, readCommon, readWindows, writeCommon } from "./common.ts";
import { type Family, field } from "./family.ts";

type Experts = NonNullable<DecoderOptions["experts"]>;

/** The load-balancing loss counts where the file asks for the router's logits, as in transformers. */
const readBalance = (json: HfConfig): number =>
  json.output_router_logits === true ? field<number>(json, "router_aux_loss_coef", "number", 0.001) : 0;
const writeBalance = (balance: number): HfConfig => ({
  output_router_logits: balance > 0,
  ...(balance > 0 ? { router_aux_loss_coef: balance } : {}),
});

const ignored = /rotary_emb\.inv_freq$|^lm_head\.weight$/;
const mixtralNames: ExpertNames = { module: "block_sparse_moe", gate: "w1", up: "w3", down: "w2" };

export const mixtral: Family = {
  modelType: "mixtral",
  architecture: "MixtralForCausalLM",
  ignored,
  read(json) {
    const common = readCommon(json);
    const experts: Experts = {
      count: field(json, "num_local_experts", "number"),
      chosen: field(json, "num_experts_per_tok", "number"),
      width: common.mlpWidth,
      balanceLoss: readBalance(json),
    };
    return { ...common, ...readWindows(json, () => "sliding"), experts };
  },
  write(config) {
    if (!config.experts) return undefined;
    const { count, chosen, width, balanceLoss } = config.experts;
    return {
      ...writeCommon(config, "mixtral", "MixtralForCausalLM"),
      intermediate_size: width,
      num_local_experts: count,
      num_experts_per_tok: chosen,
      sliding_window: config.window ?? null,
      ...writeBalance(balanceLoss),
    };
  },
  keys: (config) => commonKeys(config, { experts: mixtralNames }),
};

interface QwenVariant {
  modelType: string;
  architecture: string;
  shared: boolean;
  names: ExpertNames;
  read(json: HfConfig): Partial<DecoderOptions>;
  normalised: boolean;
}

const readQwenExperts = (json: HfConfig, { shared, normalised }: QwenVariant): Experts => {
  const dense = Array.isArray(json.mlp_only_layers) ? (json.mlp_only_layers as number[]) : [];
  const step = field<number>(json, "decoder_sparse_step", "number", 1);
  const layers = Array.from({ length: json.num_hidden_layers ?? 0 }, (_, layer) => layer);
  return {
    // transformers 5 calls it num_local_experts.
    count: field(json, typeof json.num_experts === "number" ? "num_experts" : "num_local_experts", "number"),
    chosen: field(json, "num_experts_per_tok", "number"),
    width: field(json, "moe_intermediate_size", "number"),
    denseLayers: layers.filter((layer) => dense.includes(layer) || (layer + 1) % step !== 0),
    normalise: typeof json.norm_topk_prob === "boolean" ? json.norm_topk_prob : normalised,
    ...(shared ? { sharedWidth: field<number>(json, "shared_expert_intermediate_size", "number"), sharedGate: true } : {}),
    balanceLoss: readBalance(json),
  };
};

const writeQwenExperts = (config: DecoderConfig, { shared }: QwenVariant): HfConfig => {
  const { count, chosen, width, denseLayers, normalise, sharedWidth, balanceLoss } = config.experts as NonNullable<
    DecoderConfig["experts"]
  >;
  return {
    num_experts: count,
    num_experts_per_tok: chosen,
    moe_intermediate_size: width,
    mlp_only_layers: denseLayers,
    decoder_sparse_step: 1,
    norm_topk_prob: normalise,
    ...(shared ? { shared_expert_intermediate_size: sharedWidth } : {}),
    ...writeBalance(balanceLoss),
  };
};

const qwenFamily = (variant: QwenVariant): Family => ({
  modelType: variant.modelType,
  architecture: variant.architecture,
  ignored,
  read: (json) => ({
    ...readCommon(json),
    ...(json.use_sliding_window === true ? readWindows(json, () => "sliding") : {}),
    ...variant.read(json),
    experts: readQwenExperts(json, variant),
  }),
  write: (config) =>
    config.experts && {
      ...writeCommon(config, variant.modelType, variant.architecture),
      attention_bias: config.qkvBias,
      use_sliding_window: config.window !== undefined,
      sliding_window: config.window ?? null,
      ...writeQwenExperts(config, variant),
    },
  keys: (config) => commonKeys(config, { experts: variant.names }),
});

export const qwen2Moe = qwenFamily({
  modelType: "qwen2_moe",
  architecture: "Qwen2MoeForCausalLM",
  shared: true,
  normalised: false,
  names: { ...projExperts, shared: "shared_expert", sharedGate: "shared_expert_gate" },
  read: () => ({ qkvBias: true }),
});

export const qwen3Moe = qwenFamily({
  modelType: "qwen3_moe",
  architecture: "Qwen3MoeForCausalLM",
  shared: false,
  normalised: false,
  names: projExperts,
  read: (json) => ({ qkNorm: "head", qkvBias: json.attention_bias === true, outputBias: json.attention_bias === true }),
});
