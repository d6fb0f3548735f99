// The decoder written a second time, token by token in plain float64 TypeScript, straight from the papers: what the graphs are compared with.
import type { DecoderConfig } from "../config.ts";
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
  const before = (path: string, x: Vector): Vector => (config.normPlace === "before" ? norm(path, x) : x);
  const after = (path: string, x: Vector): Vector => (config.normPlace === "after" ? norm(path, x) : x);
  const rotate = (x: Vector, position: number, layer: number): Vector => {
    if (config.position !== "rotary" || config.noRotaryLayers.includes(layer)) return x;
    const half = (D * config.rotaryFraction) / 2;
    const turned = [...x];
    for (let i = 0; i < half; i++) {
      const angle = position / config.rotaryBase ** (i / half);
      turned[i] = x[i] * Math.cos(angle) - x[i + half] * Math.sin(angle);
      turned[i + half] = x[i + half] * Math.cos(angle) + x[i] * Math.sin(angle);
    }
    return turned;
  };

  let stream = ids.map((id, t) => {
    const token = row("embedding.tokens", id).map((value) => value * config.embeddingScale);
    return config.position === "learned" ? sum(token, row("embedding.positions", positions[t])) : token;
  });
  for (let layer = 0; layer < config.layers; layer++) {
    const path = `layers.${layer}`;
    const qkv = stream.map((x) => linear(`${path}.attention.qkv`, before(`${path}.attentionNorm`, x)));
    const part = (t: number, start: number, count: number, kind: "query" | "key" | "value"): Vector[] => {
      const whole = qkv[t].slice(start * D, (start + count) * D);
      const rows = config.qkNorm === "projection" && kind !== "value" ? norm(`${path}.attention.${kind}Norm`, whole) : whole;
      return Array.from({ length: count }, (_, h) => {
        const head = rows.slice(h * D, (h + 1) * D);
        if (kind === "value") return head;
        return rotate(config.qkNorm === "head" ? norm(`${path}.attention.${kind}Norm`, head) : head, positions[t], layer);
      });
    };
    const queries = ids.map((_, t) => part(t, 0, heads, "query"));
    const keys = ids.map((_, t) => part(t, heads, kvHeads, "key"));
    const values = ids.map((_, t) => part(t, heads + kvHeads, kvHeads, "value"));
    const window = config.layerTypes[layer] === "sliding" ? (config.window as number) : Number.POSITIVE_INFINITY;
    stream = stream.map((x, t) => {
      const seen = ids.map((_, s) => s).filter((s) => s <= t && t - s < window && documents[s] === documents[t]);
      const mixed = queries[t].flatMap((query, h) => {
        const g = Math.floor(h / (heads / kvHeads));
        const scores = seen.map((s) => cap(dot(query, keys[s][g]) * config.attentionScale, config.attentionSoftCap));
        const weights = softmax(scores);
        return Array.from({ length: D }, (_, d) => seen.reduce((total, s, i) => total + weights[i] * values[s][g][d], 0));
      });
      return sum(x, after(`${path}.attentionNorm`, linear(`${path}.attention.output`, mixed)));
    });
    stream = stream.map((x) => {
      const inner = linear(`${path}.mlp.up`, before(`${path}.mlpNorm`, x));
      const act = activations[config.activation];
      const M = config.mlpWidth;
      const active = config.mlp === "gated" ? inner.slice(0, M).map((gate, i) => act(gate) * inner[M + i]) : inner.map(act);
      return sum(x, after(`${path}.mlpNorm`, linear(`${path}.mlp.down`, active)));
    });
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
