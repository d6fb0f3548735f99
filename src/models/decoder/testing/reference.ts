// The decoder written a second time, token by token in plain float64 TypeScript, straight from the papers: what the graphs are compared with.
// Frequencies of scaled rotary positions are taken from nn/rotary.ts, whose own tests compare them with published numbers.
import { attentionFactorOf, inverseFrequencies } from "../../../nn/rotary.ts";
import { type DecoderConfig, rotaryOptions } from "../config.ts";
import type { ExpertOptions, LatentOptions } from "../options.ts";
import type { Leaves } from "./variants.ts";

type Vector = number[];

export interface ReferenceOptions {
  /** Of each token; default 0, 1, 2 … */
  positions?: readonly number[];
  /** Tokens see their own document only; default: one. */
  documents?: readonly number[];
}

/** Logits [T][V] of one sequence. */
export function referenceLogits(config: DecoderConfig, leaves: Leaves, ids: readonly number[], options: ReferenceOptions = {}): Vector[] {
  const { heads, kvHeads, headWidth: D } = config;
  const positions = options.positions ?? ids.map((_, t) => t);
  const documents = options.documents ?? ids.map(() => 0);
  const leaf = (path: string): Vector | undefined => {
    const found = leaves.get(path);
    return found && Array.from(found.data as Float32Array);
  };
  const row = (path: string, index: number): Vector => {
    const { shape, data } = leaves.get(path) as { shape: readonly number[]; data: Float32Array };
    return Array.from(data.subarray(index * shape[1], (index + 1) * shape[1]));
  };
  const linear = (path: string, x: Vector): Vector => {
    const bias = leaf(`${path}.bias`);
    const out = leaves.get(`${path}.weight`)?.shape[0] as number;
    return Array.from({ length: out }, (_, i) => dot(row(`${path}.weight`, i), x) + (bias?.[i] ?? 0));
  };
  const norm = (path: string, x: Vector): Vector => {
    const [scale, bias] = [leaf(`${path}.scale`) as Vector, leaf(`${path}.bias`)];
    const mean = config.norm === "layer" && !path.includes("queryNorm") && !path.includes("keyNorm") ? average(x) : 0;
    const spread = Math.sqrt(average(x.map((value) => (value - mean) ** 2)) + config.normEpsilon);
    return x.map((value, i) => ((value - mean) / spread) * scale[i] + (bias?.[i] ?? 0));
  };
  const before = (path: string, x: Vector): Vector => (config.normPlace === "after" ? x : norm(`${path}Norm`, x));
  const after = (path: string, x: Vector): Vector =>
    config.normPlace === "before" ? x : norm(config.normPlace === "both" ? `${path}OutputNorm` : `${path}Norm`, x);
  const rotate = (x: Vector, position: number, layer: number): Vector => {
    if (config.position !== "rotary" || config.noRotaryLayers.includes(layer)) return x;
    const options = rotaryOptions(config, layer);
    const half = options.width / 2;
    const factor = attentionFactorOf(options.scaling);
    const frequencies = options.scaling ? inverseFrequencies(options, ids.length) : undefined;
    const turned = [...x];
    for (let i = 0; i < half; i++) {
      const angle = position * (frequencies?.[i] ?? options.base ** (-i / half));
      turned[i] = factor * (x[i] * Math.cos(angle) - x[i + half] * Math.sin(angle));
      turned[i + half] = factor * (x[i + half] * Math.cos(angle) + x[i] * Math.sin(angle));
    }
    return turned;
  };
  const act = activations[config.activation];
  const mlp = (path: string, x: Vector): Vector => {
    const inner = linear(`${path}.up`, x);
    const M = inner.length / 2;
    const active = config.mlp === "gated" ? inner.slice(0, M).map((gate, i) => act(gate) * inner[M + i]) : inner.map(act);
    return linear(`${path}.down`, active);
  };
  /** Matrix `index` of a stack [E, out, in]. */
  const stacked = (path: string, index: number, x: Vector): Vector => {
    const { shape, data } = leaves.get(path) as { shape: readonly number[]; data: Float32Array };
    const [, out, inner] = shape;
    return Array.from({ length: out }, (_, i) => {
      const start = (index * out + i) * inner;
      return dot(Array.from(data.subarray(start, start + inner)), x);
    });
  };
  const experts = (path: string, x: Vector): Vector => {
    const { count, chosen, score, normalise, scale, groups, chosenGroups, sharedGate } = config.experts as ExpertOptions;
    const logits = linear(`${path}.experts.router`, x);
    const scores = score === "softmax" ? softmax(logits) : logits.map((z) => 1 / (1 + Math.exp(-z)));
    const selection = leaf(`${path}.experts.router.selection`);
    const merit = scores.map((value, e) => value + (selection?.[e] ?? 0));
    const size = count / groups;
    const best = (values: Vector, n: number): number[] => [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, n);
    const ofGroup = Array.from({ length: groups }, (_, g) => {
      const own = merit.slice(g * size, (g + 1) * size);
      return best(own, 2).reduce((total, i) => total + own[i], 0);
    });
    const open = groups > 1 ? best(ofGroup, chosenGroups) : [0];
    const picked = best(
      merit.map((value, e) => (open.includes(Math.floor(e / size)) ? value : Number.NEGATIVE_INFINITY)),
      chosen,
    );
    const total = normalise ? picked.reduce((sum, e) => sum + scores[e], 0) : 1;
    const routed = picked.map((e) => {
      const inner = stacked(`${path}.experts.up.weight`, e, x);
      const active = Array.from({ length: inner.length / 2 }, (_, i) => act(inner[2 * i]) * inner[2 * i + 1]);
      return stacked(`${path}.experts.down.weight`, e, active).map((value) => (value * scale * scores[e]) / total);
    });
    const shared = leaves.has(`${path}.mlp.up.weight`) ? mlp(`${path}.mlp`, x) : x.map(() => 0);
    const share = sharedGate ? 1 / (1 + Math.exp(-linear(`${path}.experts.sharedGate`, x)[0])) : 1;
    return routed.reduce(
      sum,
      shared.map((value) => value * share),
    );
  };
  /** Queries, keys and values of each head, as published: plain features, then rotated ones. */
  const latentParts = (path: string, x: Vector, position: number, layer: number): Record<"query" | "key" | "value", Vector[]> => {
    const { queryRank, keyValueRank, plainWidth, rotaryWidth, valueWidth } = config.latent as LatentOptions;
    const own = (scale: string, values: Vector): Vector => {
      const spread = Math.sqrt(average(values.map((value) => value ** 2)) + 1e-6);
      return values.map((value, i) => (value / spread) * (leaf(`${path}.${scale}.scale`) as Vector)[i]);
    };
    const turn = (values: Vector): Vector => rotate(values, position, layer);
    const query = linear(`${path}.query`, queryRank ? own("queryNorm", linear(`${path}.queryDown`, x)) : x);
    const down = linear(`${path}.keyValueDown`, x);
    const turned = turn(down.slice(keyValueRank));
    const keyValue = linear(`${path}.keyValue`, own("keyValueNorm", down.slice(0, keyValueRank)));
    const heads_ = Array.from({ length: heads }, (_, h) => h);
    const [q, kv] = [plainWidth + rotaryWidth, plainWidth + valueWidth];
    return {
      query: heads_.map((h) => [...query.slice(h * q, h * q + plainWidth), ...turn(query.slice(h * q + plainWidth, (h + 1) * q))]),
      key: heads_.map((h) => [...keyValue.slice(h * kv, h * kv + plainWidth), ...turned]),
      value: heads_.map((h) => keyValue.slice(h * kv + plainWidth, (h + 1) * kv)),
    };
  };

  let stream = ids.map((id, t) => {
    const token = row("embedding.tokens", id).map((value) => value * config.embeddingScale);
    return config.position === "learned" ? sum(token, row("embedding.positions", positions[t])) : token;
  });
  for (let layer = 0; layer < config.layers; layer++) {
    const path = `layers.${layer}`;
    const entered = stream.map((x) => before(`${path}.attention`, x));
    const qkv = config.latent ? [] : entered.map((x) => linear(`${path}.attention.qkv`, x));
    const latents = config.latent && entered.map((x, t) => latentParts(`${path}.attention.latent`, x, positions[t], layer));
    const part = (t: number, start: number, count: number, kind: "query" | "key" | "value"): Vector[] => {
      const whole = qkv[t].slice(start * D, (start + count) * D);
      const rows = config.qkNorm === "projection" && kind !== "value" ? norm(`${path}.attention.${kind}Norm`, whole) : whole;
      return Array.from({ length: count }, (_, h) => {
        const head = rows.slice(h * D, (h + 1) * D);
        if (kind === "value") return head;
        return rotate(config.qkNorm === "head" ? norm(`${path}.attention.${kind}Norm`, head) : head, positions[t], layer);
      });
    };
    const queries = ids.map((_, t) => latents?.[t].query ?? part(t, 0, heads, "query"));
    const keys = ids.map((_, t) => latents?.[t].key ?? part(t, heads, kvHeads, "key"));
    const values = ids.map((_, t) => latents?.[t].value ?? part(t, heads + kvHeads, kvHeads, "value"));
    const valueWidth = values[0][0].length;
    const window = config.layerTypes[layer] === "sliding" ? (config.window as number) : Number.POSITIVE_INFINITY;
    stream = stream.map((x, t) => {
      const seen = ids.map((_, s) => s).filter((s) => s <= t && t - s < window && documents[s] === documents[t]);
      const mixed = queries[t].flatMap((query, h) => {
        const g = Math.floor(h / (heads / kvHeads));
        const scores = seen.map((s) => cap(dot(query, keys[s][g]) * config.attentionScale, config.attentionSoftCap));
        const weights = softmax(scores);
        return Array.from({ length: valueWidth }, (_, d) => seen.reduce((total, s, i) => total + weights[i] * values[s][g][d], 0));
      });
      return sum(x, after(`${path}.attention`, linear(`${path}.attention.output`, mixed)));
    });
    const forward =
      config.experts && !config.experts.denseLayers.includes(layer) ? experts : (at: string, x: Vector) => mlp(`${at}.mlp`, x);
    stream = stream.map((x) => sum(x, after(`${path}.mlp`, forward(path, before(`${path}.mlp`, x)))));
  }
  const output = config.tieEmbeddings ? "embedding.tokens" : "head.weight";
  return stream.map((x) => {
    const final = norm("norm", x);
    return Array.from({ length: config.vocabSize }, (_, v) => cap(dot(row(output, v), final), config.logitSoftCap));
  });
}

/** −log softmax(logits)[label]. */
export function negativeLogLikelihood(logits: Vector, label: number): number {
  const largest = Math.max(...logits);
  return largest + Math.log(logits.reduce((total, value) => total + Math.exp(value - largest), 0)) - logits[label];
}

const dot = (a: Vector, b: Vector): number => a.reduce((total, value, i) => total + value * b[i], 0);
const sum = (a: Vector, b: Vector): Vector => a.map((value, i) => value + b[i]);
const average = (x: Vector): number => x.reduce((total, value) => total + value, 0) / x.length;
const cap = (x: number, limit: number): number => (limit > 0 ? limit * Math.tanh(x / limit) : x);

function softmax(scores: Vector): Vector {
  const largest = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - largest));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}

const activations: Record<DecoderConfig["activation"], (x: number) => number> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
  geluTanh: (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(0, x),
  squaredRelu: (x) => Math.max(0, x) ** 2,
};

/** Maclaurin series; exact to 1e-12 for the |x| < 5 that occur here. */
function erf(x: number): number {
  let term = x;
  let total = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(total); n++) {
    term *= -(x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}
