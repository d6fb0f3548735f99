// Phi-3 (Abdin et al. 2024): as Llama, with query, key and value in one tensor and gate and up in another, a window in all layers, and
// longrope positions in the versions for long contexts.
import { commonKeys, readCommon, readWindows, writeCommon } from "./common.ts";
import type { Family } from "./family.ts";

const [modelType, architecture] = ["phi3", "Phi3ForCausalLM"];

export const phi3: Family = {
  modelType,
  architecture,
  ignored: /rotary_emb\.inv_freq$|^lm_head\.weight$/,
  read: (json) => ({ ...readCommon(json), ...readWindows(json, () => "sliding") }),
  write(config) {
    const { rotaryScaling, contextLength, window } = config;
    return {
      ...writeCommon(config, modelType, architecture),
      original_max_position_embeddings: rotaryScaling?.kind === "longrope" ? rotaryScaling.originalLength : contextLength,
      sliding_window: window ?? null,
    };
  },
  keys: (config) => commonKeys(config, { fused: true }),
};
