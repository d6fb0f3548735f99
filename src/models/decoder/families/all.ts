// All families, in the order in which a configuration is offered to them for writing.
import { deepseekV3 } from "./deepseek.ts";
import { mixtral, qwen2Moe, qwen3Moe } from "./experts.ts";
import type { Family } from "./family.ts";
import { gemma, gemma2, gemma3 } from "./gemma.ts";
import { gpt2 } from "./gpt2.ts";
import { llama, mistral, olmo2, olmo3, qwen2, qwen3, smollm3 } from "./llama.ts";
import { native } from "./native.ts";
import { phi3 } from "./phi3.ts";

export const families: readonly Family[] = [
  llama,
  gpt2,
  qwen2,
  qwen3,
  mistral,
  smollm3,
  olmo2,
  olmo3,
  gemma,
  gemma2,
  gemma3,
  phi3,
  mixtral,
  qwen3Moe,
  qwen2Moe,
  deepseekV3,
  native,
];
