// Where the tensors of a Hugging Face checkpoint are in a GGUF file: names and the few changes that llama.cpp's converter makes.
// Only names that are in the file are listed, so one table serves all architectures.
import { FormatError } from "../../base/errors.ts";
import type { GgufSource } from "../../formats/gguf.ts";
import type { HfConfig } from "../../formats/hf-config.ts";

/** What is to be done to the stored values. */
export type GgufChange =
  /** Rows of heads of this width, stored with the rotary pairs (i, i + D/2) side by side: row 2i is row i of the head, 2i + 1 is i + D/2. */
  | { readonly kind: "pairs"; readonly headWidth: number }
  /** Norm weights are stored as 1 + w. */
  | { readonly kind: "minusOne" }
  /** The checkpoint stores [in, out] (GPT-2's Conv1D), GGUF always [out, in]. */
  | { readonly kind: "transposed" };

export interface GgufPlace {
  /** Name in the checkpoint. */
  readonly key: string;
  /** Name in the GGUF file. */
  readonly name: string;
  /** One of the matrices that are stacked in the file (experts). */
  readonly index?: number;
  readonly change?: GgufChange;
}

interface Architecture {
  /** model_type of the checkpoint. */
  readonly modelType: string;
  /** Query and key rows are stored in adjacent pairs. */
  readonly pairs?: boolean;
  /** Norm weights are stored as 1 + w. */
  readonly onePlusNorms?: boolean;
  /** The norms of a block: name in the checkpoint, name in the file. */
  readonly norms: readonly (readonly [key: string, name: string])[];
  /** Prefix and names of experts in the checkpoint. */
  readonly experts?: { readonly path: string; readonly names: readonly [gate: string, up: string, down: string] };
}

const norms = {
  before: [
    ["input_layernorm", "attn_norm"],
    ["post_attention_layernorm", "ffn_norm"],
  ],
  after: [
    ["post_attention_layernorm", "post_attention_norm"],
    ["post_feedforward_layernorm", "post_ffw_norm"],
  ],
  both: [
    ["input_layernorm", "attn_norm"],
    ["post_attention_layernorm", "post_attention_norm"],
    ["pre_feedforward_layernorm", "ffn_norm"],
    ["post_feedforward_layernorm", "post_ffw_norm"],
  ],
} as const;

const swiExperts = { path: "mlp", names: ["gate_proj", "up_proj", "down_proj"] } as const;

/** By `general.architecture`. */
const architectures: Readonly<Record<string, Architecture>> = {
  llama: { modelType: "llama", pairs: true, norms: norms.before },
  qwen2: { modelType: "qwen2", norms: norms.before },
  qwen2moe: { modelType: "qwen2_moe", norms: norms.before, experts: swiExperts },
  qwen3: { modelType: "qwen3", norms: norms.before },
  qwen3moe: { modelType: "qwen3_moe", norms: norms.before, experts: swiExperts },
  gemma: { modelType: "gemma", onePlusNorms: true, norms: norms.before },
  gemma2: { modelType: "gemma2", onePlusNorms: true, norms: norms.both },
  gemma3: { modelType: "gemma3_text", onePlusNorms: true, norms: norms.both },
  phi3: { modelType: "phi3", norms: norms.before },
  olmo2: { modelType: "olmo2", norms: norms.after },
  smollm3: { modelType: "smollm3", pairs: true, norms: norms.before },
  gpt2: { modelType: "gpt2", norms: [] },
};

/** llama.cpp's name for Mixtral is llama too; experts tell them apart. */
const mixtral: Architecture = {
  modelType: "mixtral",
  pairs: true,
  norms: norms.before,
  experts: { path: "block_sparse_moe", names: ["w1", "w3", "w2"] },
};

/** @throws FormatError for architectures that are not known here. */
export function ggufArchitecture(source: Pick<GgufSource, "path" | "value">): Architecture & { readonly name: string } {
  const name = source.value("general.architecture");
  const known = typeof name === "string" && Object.hasOwn(architectures, name) ? architectures[name] : undefined;
  if (typeof name !== "string" || known === undefined) {
    throw new FormatError(
      `${source.path}: expected general.architecture ${Object.keys(architectures).join(", ")}, got ${JSON.stringify(name ?? null)}`,
      { hint: "This architecture is not supported." },
    );
  }
  return name === "llama" && Number(source.value("llama.expert_count") ?? 0) > 0 ? { ...mixtral, name } : { ...known, name };
}

/** The GGUF architecture that a model_type is written as, or undefined. */
export function architectureOfModelType(modelType: string): (Architecture & { readonly name: string }) | undefined {
  if (modelType === "mixtral") return { ...mixtral, name: "llama" };
  // Without its sliding window, Mistral is a Llama; both have one name in GGUF.
  const found = Object.entries(architectures).find(([, { modelType: own }]) => own === (modelType === "mistral" ? "llama" : modelType));
  return found && { ...found[1], name: found[0] };
}

/** Places of every tensor that a checkpoint of this configuration may have. @param has whether the file has a tensor of a name. */
export function ggufPlaces(architecture: Architecture, config: HfConfig, has: (name: string) => boolean): GgufPlace[] {
  const places: GgufPlace[] = [];
  const add = (key: string, name: string, change?: GgufChange, index?: number): void => {
    if (has(name)) places.push({ key, name, ...(change ? { change } : {}), ...(index === undefined ? {} : { index }) });
  };
  const layers = Number(config.num_hidden_layers ?? config.n_layer);
  if (architecture.modelType === "gpt2") {
    addGpt2(add, layers);
    return places;
  }
  const headWidth = Number(config.head_dim);
  const pairs: GgufChange | undefined = architecture.pairs ? { kind: "pairs", headWidth } : undefined;
  const normChange: GgufChange | undefined = architecture.onePlusNorms ? { kind: "minusOne" } : undefined;
  const linear = (key: string, name: string, change?: GgufChange): void => {
    add(`${key}.weight`, `${name}.weight`, change);
    add(`${key}.bias`, `${name}.bias`, change);
  };
  add("model.embed_tokens.weight", "token_embd.weight");
  for (let i = 0; i < layers; i++) {
    const [key, name] = [`model.layers.${i}`, `blk.${i}`];
    for (const [from, to] of architecture.norms) add(`${key}.${from}.weight`, `${name}.${to}.weight`, normChange);
    linear(`${key}.self_attn.q_proj`, `${name}.attn_q`, pairs);
    linear(`${key}.self_attn.k_proj`, `${name}.attn_k`, pairs);
    linear(`${key}.self_attn.v_proj`, `${name}.attn_v`);
    linear(`${key}.self_attn.qkv_proj`, `${name}.attn_qkv`);
    linear(`${key}.self_attn.o_proj`, `${name}.attn_output`);
    add(`${key}.self_attn.q_norm.weight`, `${name}.attn_q_norm.weight`, normChange);
    add(`${key}.self_attn.k_norm.weight`, `${name}.attn_k_norm.weight`, normChange);
    const fused = architecture.modelType === "phi3";
    linear(`${key}.mlp.${fused ? "gate_up" : "up"}_proj`, `${name}.ffn_up`);
    linear(`${key}.mlp.gate_proj`, `${name}.ffn_gate`);
    linear(`${key}.mlp.down_proj`, `${name}.ffn_down`);
    if (architecture.experts) addExperts(add, architecture.experts, key, name, Number(config.num_local_experts ?? config.num_experts));
  }
  add("model.norm.weight", "output_norm.weight", normChange);
  add("lm_head.weight", "output.weight");
  return places;
}

type Add = (key: string, name: string, change?: GgufChange, index?: number) => void;

function addExperts(
  add: Add,
  { path, names: [gate, up, down] }: NonNullable<Architecture["experts"]>,
  key: string,
  name: string,
  count: number,
): void {
  add(`${key}.${path}.gate.weight`, `${name}.ffn_gate_inp.weight`);
  for (let e = 0; e < count; e++) {
    for (const [inCheckpoint, inFile] of [
      [gate, "gate"],
      [up, "up"],
      [down, "down"],
    ]) {
      const expert = `${key}.${path}.experts.${e}.${inCheckpoint}.weight`;
      add(expert, `${name}.ffn_${inFile}_exps.weight`, undefined, e);
      // Before March 2024 each expert was a tensor of its own.
      add(expert, `${name}.ffn_${inFile}.${e}.weight`);
    }
  }
  for (const part of ["gate", "up", "down"]) add(`${key}.${path}.shared_expert.${part}_proj.weight`, `${name}.ffn_${part}_shexp.weight`);
  add(`${key}.${path}.shared_expert_gate.weight`, `${name}.ffn_gate_inp_shexp.weight`);
}

function addGpt2(add: Add, layers: number): void {
  add("wte.weight", "token_embd.weight");
  add("wpe.weight", "position_embd.weight");
  for (let i = 0; i < layers; i++) {
    for (const [key, name] of [
      ["ln_1", "attn_norm"],
      ["ln_2", "ffn_norm"],
    ]) {
      for (const leaf of ["weight", "bias"]) add(`h.${i}.${key}.${leaf}`, `blk.${i}.${name}.${leaf}`);
    }
    for (const [key, name] of [
      ["attn.c_attn", "attn_qkv"],
      ["attn.c_proj", "attn_output"],
      ["mlp.c_fc", "ffn_up"],
      ["mlp.c_proj", "ffn_down"],
    ]) {
      add(`h.${i}.${key}.weight`, `blk.${i}.${name}.weight`, { kind: "transposed" });
      add(`h.${i}.${key}.bias`, `blk.${i}.${name}.bias`);
    }
  }
  for (const leaf of ["weight", "bias"]) add(`ln_f.${leaf}`, `output_norm.${leaf}`);
}
