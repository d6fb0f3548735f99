// What Llama introduced and most later families kept: names in config.json, names of tensors. A family says what it does differently.
import type { HfConfig } from "../../../formats/hf-config.ts";
import { type DecoderConfig, type DecoderOptions, hasExperts } from "../config.ts";
import { field, type KeyMapping, unsupported } from "./family.ts";
import { readRope, writeRope } from "./rope.ts";

const activationNames: Record<string, DecoderOptions["activation"]> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_pytorch_tanh: "geluTanh",
  gelu_new: "geluTanh",
  relu: "relu",
  relu2: "squaredRelu",
};

/** @throws FormatError for an activation that the decoder does not have. */
export function readActivation(json: HfConfig, ...names: string[]): DecoderOptions["activation"] {
  const name = names.find((candidate) => typeof json[candidate] === "string");
  if (name === undefined) return "silu";
  return activationNames[json[name] as string] ?? unsupported(String(json.model_type), name, json[name]);
}

export const writeActivation = ({ activation }: DecoderConfig): string | undefined =>
  Object.entries(activationNames).find(([, value]) => value === activation)?.[0];

/** Options that all relatives of Llama state in the same way. @param tied whether embeddings are tied where the file does not say. */
export function readCommon(json: HfConfig, { tied = false }: { tied?: boolean } = {}) {
  const heads = field<number>(json, "num_attention_heads", "number");
  const width = field<number>(json, "hidden_size", "number");
  const rope = readRope(json);
  return {
    vocabSize: field<number>(json, "vocab_size", "number"),
    width,
    layers: field<number>(json, "num_hidden_layers", "number"),
    heads,
    kvHeads: field<number>(json, "num_key_value_heads", "number", heads),
    headWidth: field<number>(json, "head_dim", "number", width / heads),
    mlpWidth: field<number>(json, "intermediate_size", "number"),
    contextLength: field<number>(json, "max_position_embeddings", "number"),
    norm: "rms",
    normEpsilon: field<number>(json, "rms_norm_eps", "number", 1e-6),
    position: "rotary",
    rotaryBase: rope.base,
    rotaryScaling: rope.scaling,
    rotaryFraction: rope.fraction,
    mlp: "gated",
    activation: readActivation(json, "hidden_act"),
    tieEmbeddings: json.tie_word_embeddings ?? tied,
  } as const satisfies DecoderOptions;
}

/** The same fields, written. */
export function writeCommon(config: DecoderConfig, modelType: string, architecture: string): HfConfig {
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
    hidden_act: writeActivation(config),
    max_position_embeddings: config.contextLength,
    initializer_range: config.initStd,
    rms_norm_eps: config.normEpsilon,
    ...writeRope(config),
    tie_word_embeddings: config.tieEmbeddings,
    torch_dtype: "float32",
  };
}

type LayerType = NonNullable<DecoderOptions["layerTypes"]>[number];

/** Sliding windows: `layer_types` where the file has them, else the family's rule. Nothing where no layer slides. */
export function readWindows(
  json: HfConfig,
  rule: (layer: number) => LayerType,
  window = json.sliding_window ?? undefined,
): Pick<DecoderOptions, "window" | "layerTypes"> {
  const layers = field<number>(json, "num_hidden_layers", "number");
  const kinds: Record<string, LayerType> = { full_attention: "full", sliding_attention: "sliding" };
  const layerTypes = json.layer_types
    ? json.layer_types.map((name) => kinds[name] ?? unsupported(String(json.model_type), "layer_types", name))
    : Array.from({ length: layers }, (_, layer) => rule(layer));
  return window !== undefined && layerTypes.includes("sliding") ? { window, layerTypes } : {};
}

export const writeLayerTypes = ({ layerTypes }: DecoderConfig): string[] => layerTypes.map((kind) => `${kind}_attention`);

export interface KeyOptions {
  /** Added to what is stored of every norm (Gemma: 1). */
  normOffset?: number;
  /** Query, key and value in one tensor, and gate and up (Phi-3). */
  fused?: boolean;
  /** Names of the parts of experts. */
  experts?: ExpertNames;
}

export interface ExpertNames {
  /** Module that holds them, `mlp`. */
  readonly module: string;
  readonly gate: string;
  readonly up: string;
  readonly down: string;
  /** The MLP that every token goes through. */
  readonly shared?: string;
  readonly sharedGate?: string;
}

export const projExperts: ExpertNames = { module: "mlp", gate: "gate_proj", up: "up_proj", down: "down_proj" };

/** Names of the norms of a block, by where they stand. */
const normKeys = {
  before: { attentionNorm: "input_layernorm", mlpNorm: "post_attention_layernorm" },
  after: { attentionNorm: "post_attention_layernorm", mlpNorm: "post_feedforward_layernorm" },
  both: {
    attentionNorm: "input_layernorm",
    attentionOutputNorm: "post_attention_layernorm",
    mlpNorm: "pre_feedforward_layernorm",
    mlpOutputNorm: "post_feedforward_layernorm",
  },
} as const;

/** The key names that Llama introduced. */
export function commonKeys(config: DecoderConfig, options: KeyOptions = {}): KeyMapping[] {
  const keys: KeyMapping[] = [{ path: "embedding.tokens", key: "model.embed_tokens.weight" }];
  for (let i = 0; i < config.layers; i++) keys.push(...blockKeys(config, i, `model.layers.${i}`, options));
  keys.push({ path: "norm.scale", key: "model.norm.weight", ...offsetOf(options) });
  if (!config.tieEmbeddings) keys.push({ path: "head.weight", key: "lm_head.weight" });
  return keys;
}

const offsetOf = ({ normOffset }: KeyOptions): Pick<KeyMapping, "offset"> => (normOffset ? { offset: normOffset } : {});

function blockKeys(config: DecoderConfig, layer: number, key: string, options: KeyOptions): KeyMapping[] {
  const keys: KeyMapping[] = [];
  const path = `layers.${layer}`;
  const norm = (from: string, to: string): void => {
    keys.push({ path: `${path}.${from}.scale`, key: `${key}.${to}.weight`, ...offsetOf(options) });
  };
  const linear = (from: string, part: string | undefined, to: string, bias = false): void => {
    keys.push({ path: `${path}.${from}.weight`, part, key: `${key}.${to}.weight` });
    if (bias) keys.push({ path: `${path}.${from}.bias`, part, key: `${key}.${to}.bias` });
  };
  const mlp = (module: string): void => {
    if (options.fused) linear("mlp.up", undefined, `${module}.gate_up_proj`, config.mlpBias);
    else for (const part of ["gate", "up"]) linear("mlp.up", part, `${module}.${part}_proj`, config.mlpBias);
    linear("mlp.down", undefined, `${module}.down_proj`, config.mlpBias);
  };
  for (const [from, to] of Object.entries(normKeys[config.normPlace])) norm(from, to);
  if (config.latent) keys.push(...latentKeys(config, path, `${key}.self_attn`));
  else if (options.fused) linear("attention.qkv", undefined, "self_attn.qkv_proj", config.qkvBias);
  else for (const part of ["query", "key", "value"]) linear("attention.qkv", part, `self_attn.${part[0]}_proj`, config.qkvBias);
  linear("attention.output", undefined, "self_attn.o_proj", config.outputBias);
  if (config.qkNorm !== "none") {
    norm("attention.queryNorm", "self_attn.q_norm");
    norm("attention.keyNorm", "self_attn.k_norm");
  }
  if (!hasExperts(config, layer)) mlp("mlp");
  else keys.push(...expertKeys(config, path, key, options.experts ?? projExperts, mlp));
  return keys;
}

function expertKeys(
  { experts }: DecoderConfig,
  path: string,
  key: string,
  { module, gate, up, down, shared, sharedGate }: ExpertNames,
  mlp: (module: string) => void,
): KeyMapping[] {
  const router = `${key}.${module}.gate`;
  const keys: KeyMapping[] = [{ path: `${path}.experts.router.weight`, key: `${router}.weight` }];
  if (experts?.selectionBias) keys.push({ path: `${path}.experts.router.selection`, key: `${router}.e_score_correction_bias` });
  if (experts?.sharedGate) keys.push({ path: `${path}.experts.sharedGate.weight`, key: `${key}.${module}.${sharedGate}.weight` });
  if (experts && experts.sharedWidth > 0) mlp(`${module}.${shared}`);
  for (let index = 0; index < (experts?.count ?? 0); index++) {
    const expert = `${key}.${module}.experts.${index}`;
    keys.push(
      { path: `${path}.experts.up.weight`, index, alternate: 0, key: `${expert}.${gate}.weight` },
      { path: `${path}.experts.up.weight`, index, alternate: 1, key: `${expert}.${up}.weight` },
      { path: `${path}.experts.down.weight`, index, key: `${expert}.${down}.weight` },
    );
  }
  return keys;
}

function latentKeys({ latent }: DecoderConfig, path: string, key: string): KeyMapping[] {
  if (!latent) return [];
  const from = `${path}.attention.latent`;
  const { plainWidth, rotaryWidth, keyValueRank } = latent;
  const query: KeyMapping = {
    path: `${from}.query.weight`,
    key: `${key}.${latent.queryRank ? "q_b_proj" : "q_proj"}.weight`,
    pairs: { block: plainWidth + rotaryWidth, rotary: rotaryWidth },
  };
  const compressed: KeyMapping[] = latent.queryRank
    ? [
        { path: `${from}.queryDown.weight`, key: `${key}.q_a_proj.weight` },
        { path: `${from}.queryNorm.scale`, key: `${key}.q_a_layernorm.weight` },
      ]
    : [];
  return [
    ...compressed,
    query,
    {
      path: `${from}.keyValueDown.weight`,
      key: `${key}.kv_a_proj_with_mqa.weight`,
      pairs: { block: keyValueRank + rotaryWidth, rotary: rotaryWidth },
    },
    { path: `${from}.keyValueNorm.scale`, key: `${key}.kv_a_layernorm.weight` },
    { path: `${from}.keyValue.weight`, key: `${key}.kv_b_proj.weight` },
  ];
}
