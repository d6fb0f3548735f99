// The speed of a text in one line.
import type { GenerationSpeed } from "../../recipes/text-model/generation-speed.ts";

/** `34 tokens read at 283.3 tokens/s (12 more from the cache), first token after 0.12 s; 120 written at 56.1 tokens/s`. */
export function speedText(speed: GenerationSpeed, cachedTokens = 0): string {
  const { promptTokens, promptTokensPerSecond, firstTokenSeconds, newTokens, generationTokensPerSecond } = speed;
  const at = (rate: number): string => (rate > 0 ? ` at ${rate.toFixed(1)} tokens/s` : "");
  const cached = cachedTokens > 0 ? ` (${cachedTokens} more from the cache)` : "";
  const first = newTokens > 0 ? `, first token after ${firstTokenSeconds.toFixed(2)} s` : "";
  const tokens = promptTokens === 1 ? "token" : "tokens";
  return `${promptTokens} ${tokens} read${at(promptTokensPerSecond)}${cached}${first}; ${newTokens} written${at(generationTokensPerSecond)}`;
}
