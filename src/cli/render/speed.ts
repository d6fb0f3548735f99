// The speed of a text in one line.
import type { SpeculationSummary } from "../../decode/index.ts";
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

/** What drafts came to: "1.80 tokens a step; 4 of 6 drafts accepted, by position 0.75, 0.50". A position counts where there was a draft for it. */
export function speculationText({ tokensPerStep, numDraftTokens, numAcceptedTokens, acceptanceByPosition }: SpeculationSummary): string {
  const steps = `${tokensPerStep.toFixed(2)} tokens a step`;
  if (numDraftTokens === 0) return `${steps}; no drafts`;
  const shares = acceptanceByPosition.map((share) => share.toFixed(2)).join(", ");
  return `${steps}; ${numAcceptedTokens} of ${numDraftTokens} drafts accepted, by position ${shares}`;
}
