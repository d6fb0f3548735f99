// What distinguishes a decoder from others, in words: for people who look at a checkpoint.
import type { DecoderConfig } from "./config.ts";
import { estimateDecoder } from "./estimate.ts";

const number = (value: number): string => value.toLocaleString("en-US");
const times = (value: number): string => `x ${Number(value.toPrecision(4))}`;

function positions(config: DecoderConfig): string {
  const { position, rotaryBase, rotaryFraction, slidingRotaryBase, noRotaryLayers, rotaryScaling: scaling } = config;
  if (position !== "rotary") return position;
  const parts = [`rotary, base ${number(rotaryBase)}`];
  if (slidingRotaryBase !== undefined) parts.push(`base ${number(slidingRotaryBase)} in sliding layers`);
  if (rotaryFraction !== 1 && !config.latent) parts.push(`${number(100 * rotaryFraction)} % of the features`);
  if (noRotaryLayers.length > 0) parts.push(`none in layers ${noRotaryLayers.join(", ")}`);
  if (scaling) {
    const factor = "factor" in scaling ? ` ${times(scaling.factor)}` : "";
    const original = "originalLength" in scaling ? ` beyond ${number(scaling.originalLength)} tokens` : "";
    parts.push(`${scaling.kind}${factor}${original}`);
  }
  return parts.join(", ");
}

function attention(config: DecoderConfig): string {
  const { heads, kvHeads, headWidth, latent, window, layerTypes, qkNorm } = config;
  const parts: string[] = [];
  if (latent) {
    const { queryRank, keyValueRank, plainWidth, rotaryWidth, valueWidth } = latent;
    parts.push(`latent, ${heads} heads of ${plainWidth} + ${rotaryWidth}, values of ${valueWidth}`);
    parts.push(`compressed to ${queryRank ? `${queryRank} and ` : ""}${keyValueRank}`);
  } else parts.push(`${heads} heads of ${headWidth}${kvHeads === heads ? "" : `, ${kvHeads} for keys and values`}`);
  const sliding = layerTypes.filter((kind) => kind === "sliding").length;
  if (sliding > 0) parts.push(`window of ${number(window ?? 0)} in ${sliding} of ${layerTypes.length} layers`);
  if (qkNorm !== "none") parts.push(`norm of queries and keys by ${qkNorm}`);
  if (config.qkvBias) parts.push("biases on queries, keys and values");
  if (config.attentionSoftCap > 0) parts.push(`scores capped at ${config.attentionSoftCap}`);
  return parts.join(", ");
}

function feedForward(config: DecoderConfig): string {
  const { experts, mlp, activation, mlpWidth } = config;
  const plain = `${mlp}, ${activation}, width ${number(mlpWidth)}`;
  if (!experts) return plain;
  const { count, chosen, width, denseLayers, score, sharedWidth, groups, chosenGroups } = experts;
  const parts = [`${count} experts of width ${number(width)}, ${chosen} a token by ${score}`];
  if (groups > 1) parts.push(`from ${chosenGroups} of ${groups} groups`);
  if (sharedWidth > 0) parts.push(`and one of width ${number(sharedWidth)} for all tokens`);
  if (denseLayers.length > 0) parts.push(`a plain MLP (${plain}) in layers ${denseLayers.join(", ")}`);
  return parts.join(", ");
}

function norms(config: DecoderConfig): string {
  const place = { before: "before each sublayer", after: "after each sublayer", both: "before and after each sublayer" }[config.normPlace];
  return `${config.norm}, ${place}`;
}

/** Names and values, a line each. */
export function decoderFacts(config: DecoderConfig): [name: string, value: string][] {
  const facts: [string, string][] = [
    ["attention", attention(config)],
    ["positions", positions(config)],
    ["feed forward", feedForward(config)],
    ["norms", norms(config)],
  ];
  const head = [config.tieEmbeddings ? "the token embedding" : "a matrix of its own"];
  if (config.logitSoftCap > 0) head.push(`logits capped at ${config.logitSoftCap}`);
  if (config.embeddingScale !== 1) head.push(`embeddings ${times(config.embeddingScale)}`);
  facts.push(["output", head.join(", ")]);
  if (config.experts) facts.push(["active", `${number(estimateDecoder(config).activeParameters)} parameters a token`]);
  return facts;
}
