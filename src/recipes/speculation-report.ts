// Decodes prompts with and without a drafter, in turns, and tells what came of it: speeds, acceptance, whether the texts are the same (and if
// not, by how little), and the tree of one step.
import type { Drafter } from "../decode/drafter.ts";
import { complete, type FinishEvent, type GenerationRequest } from "../decode/generate.ts";
import type { DecoderRunner } from "../decode/runner.ts";
import { logSumExp } from "../decode/sampling/log-probabilities.ts";
import type { SpeculationStep } from "../decode/speculate.ts";
import type { SpeculationSummary } from "../decode/speculation-metrics.ts";
import type { CostPoint } from "../decode/static-tree.ts";
import type { JsonRecord } from "../engine/index.ts";
import type { Tokenizer } from "../text/index.ts";

export interface Speed {
  readonly tokens: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
}

/** Data of the artifact "speculation". */
export interface SpeculationReport {
  readonly drafter: string;
  readonly verifier: string;
  readonly plain: Speed;
  readonly speculative: Speed;
  /** Tokens a second with the drafter over those without. */
  readonly ratio: number;
  readonly tokensPerStep: number;
  /** Share of steps in which the draft at each depth was accepted. */
  readonly acceptanceByPosition: readonly number[];
  /** All texts are the same. */
  readonly identical: boolean;
  /** Where and by how little they differ. */
  readonly difference?: string;
  /** Milliseconds of a call on so many new tokens. */
  readonly costCurve: readonly CostPoint[];
  /** Nodes of a full tree, the root included. */
  readonly treeSize: number;
  /** Share of a speculative step's time. */
  readonly timeShares: { readonly draft: number; readonly target: number; readonly verify: number };
}

/** Data of the artifact "token-tree". */
export interface TokenTreeReport {
  readonly title: string;
  readonly nodes: readonly {
    readonly id: number;
    /** −1 for the root. */
    readonly parent: number;
    readonly text: string;
    /** The model's, after the path to the node's parent. */
    readonly probability: number;
    readonly accepted: boolean;
  }[];
}

export interface MeasureOptions {
  drafter: Drafter;
  treeSize: number;
  costCurve: readonly CostPoint[];
  prompts: readonly (readonly number[])[];
  maxNewTokens: number;
  /** Times that each prompt is decoded either way; medians count. Default 3. */
  rounds?: number;
  tokenizer: Tokenizer;
  signal?: AbortSignal;
}

const kinds = ["plain", "speculative"] as const;

/** Greedy decoding of every prompt, plain and speculative in turns after a warm-up. Times are sums over prompts of the medians over rounds. */
export async function measureSpeculation(runner: DecoderRunner, options: MeasureOptions): Promise<SpeculationReport & JsonRecord> {
  const { drafter, prompts, maxNewTokens, rounds = 3, tokenizer, signal } = options;
  const tokens = { plain: 0, speculative: 0 };
  const milliseconds = { plain: 0, speculative: 0 };
  const summaries: SpeculationSummary[] = [];
  let difference: string | undefined;
  for (const [i, ids] of prompts.entries()) {
    const request: GenerationRequest = { ids, maxNewTokens, sampling: { doSample: false } };
    const times = { plain: [] as number[], speculative: [] as number[] };
    const results: Partial<Record<(typeof kinds)[number], FinishEvent>> = {};
    // The round before the first one warms up.
    for (let round = -1; round < rounds; round++) {
      for (const kind of kinds) {
        const startedAt = performance.now();
        results[kind] = await complete(runner, request, { tokenizer, signal, ...(kind === "speculative" ? { drafter } : {}) });
        if (round >= 0) times[kind].push(performance.now() - startedAt);
      }
    }
    const { plain, speculative } = results as Record<(typeof kinds)[number], FinishEvent>;
    for (const kind of kinds) {
      milliseconds[kind] += times[kind].sort((x, y) => x - y)[Math.floor(rounds / 2)];
      tokens[kind] += (results[kind] as FinishEvent).ids.length;
    }
    if (speculative.speculation) summaries.push(speculative.speculation);
    difference ??= differenceOf(runner, ids, plain.ids, speculative.ids, tokenizer, `prompt ${i + 1}`);
  }
  const plain = speedOf(tokens.plain, milliseconds.plain);
  const speculative = speedOf(tokens.speculative, milliseconds.speculative);
  const total = (of: (summary: SpeculationSummary) => number): number => summaries.reduce((sum, summary) => sum + of(summary), 0);
  const positions = Math.max(0, ...summaries.map(({ numDraftsPerPos }) => numDraftsPerPos.length));
  const seconds = { draft: total((s) => s.seconds.draft), target: total((s) => s.seconds.target), verify: total((s) => s.seconds.verify) };
  const allSeconds = seconds.draft + seconds.target + seconds.verify || 1;
  const report: SpeculationReport = {
    drafter: drafter.name,
    verifier: "greedy",
    plain,
    speculative,
    ratio: speculative.tokensPerSecond / plain.tokensPerSecond,
    tokensPerStep: total((s) => s.numTokens) / total((s) => s.numSteps),
    acceptanceByPosition: Array.from(
      { length: positions },
      (_, at) => total((s) => s.numAcceptedTokensPerPos[at] ?? 0) / total((s) => s.numDraftsPerPos[at] ?? 0),
    ),
    identical: difference === undefined,
    ...(difference === undefined ? {} : { difference }),
    costCurve: options.costCurve,
    treeSize: options.treeSize,
    timeShares: { draft: seconds.draft / allSeconds, target: seconds.target / allSeconds, verify: seconds.verify / allSeconds },
  };
  return report as SpeculationReport & JsonRecord;
}

/** The most telling step of decoding the prompts: a long accepted path, of equally long ones one that leaves the first guesses. */
export async function findTokenTree(
  runner: DecoderRunner,
  { drafter, prompts, maxNewTokens, tokenizer, signal }: Omit<MeasureOptions, "treeSize" | "costCurve">,
): Promise<(TokenTreeReport & JsonRecord) | undefined> {
  let best: TokenTreeReport | undefined;
  let bestScore = 0;
  const onStep = (step: SpeculationStep): void => {
    const { shape } = step.tree;
    const { path, numAccepted } = step;
    const strays = Array.from(path.subarray(1, numAccepted + 1)).filter((node) => shape.firstChild[shape.parents[node]] !== node).length;
    const score = numAccepted + Math.min(strays, 1) * 1.5;
    if (score <= bestScore) return;
    bestScore = score;
    best = describeStep(step, tokenizer, runner.config.vocabSize);
  };
  for (const ids of prompts)
    await complete(runner, { ids, maxNewTokens, sampling: { doSample: false } }, { tokenizer, signal, drafter, onStep });
  return best as (TokenTreeReport & JsonRecord) | undefined;
}

const speedOf = (tokens: number, milliseconds: number): Speed => ({
  tokens,
  seconds: milliseconds / 1000,
  tokensPerSecond: (1000 * tokens) / milliseconds,
});

/** The first token at which two texts part, and the logits of both: a gap within rounding is a tie. */
function differenceOf(
  runner: DecoderRunner,
  prompt: readonly number[],
  a: readonly number[],
  b: readonly number[],
  tokenizer: Tokenizer,
  place: string,
): string | undefined {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  if (at === a.length && at === b.length) return undefined;
  if (at === a.length || at === b.length) return `${place}: one text ends after ${at} tokens`;
  runner.reset(0);
  const logits = runner.append(0, [...prompt, ...a.slice(0, at)]);
  const name = (id: number): string => `${JSON.stringify(tokenizer.decode([id]))} ${logits[id].toFixed(6)}`;
  return `${place}, token ${at + 1}: logits ${name(a[at])} and ${name(b[at])}, a gap of ${Math.abs(logits[a[at]] - logits[b[at]]).toExponential(1)}`;
}

function describeStep(step: SpeculationStep, tokenizer: Tokenizer, vocabSize: number): TokenTreeReport {
  const { tree, path, numAccepted, token, rows, ids, numIds } = step;
  const { shape } = tree;
  const probabilityOf = (parent: number, id: number): number => {
    const logits = rows.logits.subarray(parent * vocabSize, (parent + 1) * vocabSize);
    return Math.exp(logits[id] - logSumExp(logits));
  };
  const onPath = new Set(path.subarray(0, numAccepted + 1));
  const textOf = (id: number): string => tokenTextOf(tokenizer, id);
  const nodes = Array.from({ length: shape.size }, (_, node) => ({
    id: node,
    parent: shape.parents[node],
    text: textOf(tree.ids[node]),
    probability: node === 0 ? 1 : probabilityOf(shape.parents[node], tree.ids[node]),
    accepted: onPath.has(node),
  }));
  const last = path[numAccepted];
  // The token after the path is the model's own.
  nodes.push({ id: shape.size, parent: last, text: textOf(token), probability: probabilityOf(last, token), accepted: true });
  const before = tokenizer.decode(ids.subarray(Math.max(0, numIds - 12), numIds));
  return { title: `after “…${before}”: ${numAccepted} of ${shape.size - 1} drafts accepted, and the model's own token`, nodes };
}

/** A token by itself; decoders drop a space at the beginning of a text, which says where words begin. */
function tokenTextOf(tokenizer: Tokenizer, id: number): string {
  const token = tokenizer.idToToken(id);
  const text = tokenizer.decode([id], { skipSpecialTokens: false });
  const spaced = token !== undefined && /^[ \u2581\u0120]/.test(token) && !text.startsWith(" ");
  return (spaced ? " " : "") + text;
}
