// Which drafter pays for which work, on this machine and this model: every text is decoded plainly and with each drafter, in turns, and told as
// a table with what explains it (tokens a step, acceptance by position, what a call on n tokens and a draft cost).
import { measureCostCurve } from "../../decode/cost-curve.ts";
import type { Drafter } from "../../decode/drafter.ts";
import type { GenerationRequest } from "../../decode/generate.ts";
import { type CostPoint, TreeShape } from "../../decode/index.ts";
import type { DecoderRunner } from "../../decode/runner.ts";
import type { SpeculationSummary } from "../../decode/speculation-metrics.ts";
import type { Verifier } from "../../decode/verifiers/verifier.ts";
import { compareTexts, type Difference, type Measured, measureText } from "./measure.ts";

export interface BenchEntry {
  readonly name: string;
  readonly drafter: Drafter;
  readonly verifier?: Verifier;
}

export interface BenchText {
  readonly task: string;
  readonly ids: ArrayLike<number>;
}

export interface BenchDecodeOptions {
  readonly runner: DecoderRunner;
  readonly texts: readonly BenchText[];
  readonly entries: readonly BenchEntry[];
  readonly maxNewTokens: number;
  /** How often each text is decoded with each drafter. Default 3. */
  readonly rounds?: number;
  readonly sampling?: GenerationRequest["sampling"];
  readonly eosTokenIds?: readonly number[];
  readonly signal?: AbortSignal;
  /** Told while v(n) is measured, which happens in one go before the texts. */
  readonly onCost?: (done: number, total: number) => void;
}

/** A drafter on a kind of work. */
export interface BenchRow {
  readonly drafter: string;
  readonly task: string;
  /** τ: tokens of a step, the target's own included. */
  readonly tokensPerStep: number;
  /** Share of drafted steps in which the draft at each depth was accepted. */
  readonly acceptanceByPosition: readonly number[];
  /** Drafted tokens a step. */
  readonly draftsPerStep: number;
  /** Milliseconds of drafting a step. */
  readonly draftMilliseconds: number;
  readonly tokensPerSecond: number;
  readonly plainTokensPerSecond: number;
  /** Median over rounds of plain time over this one's, for the same texts. */
  readonly speedup: number;
  /** Smallest and largest of the rounds. */
  readonly speedupRange: readonly [number, number];
  /**
   * yes: same text; tie: differs only where two tokens are as probable within rounding; no; lossy: by the verifier's own word; law: a verifier
   * whose samples have the model's distribution but are other ones, so that texts tell nothing.
   */
  readonly lossless: "yes" | "tie" | "no" | "lossy" | "law";
  readonly differences: readonly Difference[];
  /** How many texts, and tokens of one round. */
  readonly numTexts: number;
  readonly numTokens: number;
}

export interface BenchDecodeReport {
  readonly rows: readonly BenchRow[];
  /** v(n): milliseconds of a call on n new tokens. */
  readonly costCurve: readonly CostPoint[];
  readonly rounds: number;
  readonly maxNewTokens: number;
}

export interface BenchProgress {
  readonly done: number;
  readonly total: number;
  readonly label: string;
  /** Until the end: at first as if every text had its most tokens and no draft helped, later by the pace so far. Unknown before v(n) is. */
  readonly remainingSeconds?: number;
}

const costSizes = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];

/**
 * Progress before every text; the report is what the generator returns. Drafters keep what they learn from one text to the next, as in use; texts
 * are forgotten before they come again in the next round, where a drafter that remembered them would have the answers.
 */
export async function* benchDecode(options: BenchDecodeOptions): AsyncGenerator<BenchProgress, BenchDecodeReport> {
  const { runner, texts, entries, maxNewTokens, rounds = 3, sampling = { doSample: false }, eosTokenIds, signal, onCost } = options;
  const total = texts.length * (entries.length + 1) * rounds;
  let done = 0;
  yield { done, total, label: "what a call costs" };
  const sizes = costSizes.filter((size) => size <= runner.prefillChunk && size < runner.capacity / 2);
  const costCurve = measureCostCurve(
    runner,
    sizes.map((size) => TreeShape.chain(size - 1)),
    { repeats: 12, ...(onCost ? { onProgress: onCost } : {}) },
  );
  const startedAt = performance.now();
  const remainingSeconds = (): number => {
    if (done > 0) return ((performance.now() - startedAt) / 1000 / done) * (total - done);
    const numPromptTokens = texts.reduce((sum, { ids }) => sum + ids.length, 0) / texts.length;
    const widest = costCurve[costCurve.length - 1];
    const milliseconds = maxNewTokens * costCurve[0].milliseconds + (numPromptTokens / widest.tokens) * widest.milliseconds;
    return (total * milliseconds) / 1000;
  };
  const cells = new Map<string, Cell>();
  const plainOf: (Measured | undefined)[] = texts.map(() => undefined);
  for (let round = 0; round < rounds; round++) {
    for (const { drafter } of entries) drafter.forget?.();
    for (const [index, { task, ids }] of texts.entries()) {
      const request: GenerationRequest = {
        ids: Int32Array.from(ids),
        sampling,
        maxNewTokens,
        seed: index,
        ...(eosTokenIds && { eosTokenIds }),
      };
      // Each takes its turn at every place, so that drift of the machine meets all alike.
      const order = [undefined, ...entries].map((_, i, all) => all[(i + round + index) % all.length]);
      const results = new Map<string | undefined, Measured>();
      for (const entry of order) {
        yield { done, total, label: `${task}: ${entry?.name ?? "plain"}`, remainingSeconds: remainingSeconds() };
        const setup = { signal, ...(entry ? { drafter: entry.drafter, verifier: entry.verifier } : {}) };
        results.set(entry?.name, await measureText(runner, request, setup));
        done++;
      }
      const plain = results.get(undefined) as Measured;
      plainOf[index] ??= plain;
      for (const entry of entries) {
        const key = `${entry.name}\n${task}`;
        let cell = cells.get(key);
        if (!cell) {
          cell = new Cell(entry, task, rounds);
          cells.set(key, cell);
        }
        const result = results.get(entry.name) as Measured;
        cell.add(round, plain, result);
        // Rejection and block verification draw otherwise than plain sampling does.
        if (sampling.doSample !== false && entry.verifier?.lossless) cell.hasOtherDraws = true;
        else if (round === 0 && sampling.doSample === false) cell.compare(compareTexts(runner, ids, plain.ids, result.ids));
        else if (round === 0)
          cell.compare(same(plain.ids, result.ids) ? undefined : { position: 0, logitGap: Number.NaN, rounding: Number.NaN, isTie: false });
      }
    }
  }
  return { rows: [...cells.values()].map((cell) => cell.row()), costCurve, rounds, maxNewTokens };
}

const same = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((id, i) => id === b[i]);

class Cell {
  readonly #entry: BenchEntry;
  readonly #task: string;
  readonly #plain: Float64Array;
  readonly #own: Float64Array;
  readonly #tokens: Int32Array;
  readonly #plainTokens: Int32Array;
  readonly #summaries: SpeculationSummary[] = [];
  readonly #differences: Difference[] = [];
  /** Texts differ from plain ones by design. */
  hasOtherDraws = false;
  #numTexts = 0;

  constructor(entry: BenchEntry, task: string, rounds: number) {
    this.#entry = entry;
    this.#task = task;
    this.#plain = new Float64Array(rounds);
    this.#own = new Float64Array(rounds);
    this.#tokens = new Int32Array(rounds);
    this.#plainTokens = new Int32Array(rounds);
  }

  add(round: number, plain: Measured, own: Measured): void {
    this.#plain[round] += plain.seconds;
    this.#own[round] += own.seconds;
    this.#tokens[round] += own.tokens;
    this.#plainTokens[round] += plain.tokens;
    if (own.speculation) this.#summaries.push(own.speculation);
    if (round === 0) this.#numTexts++;
  }

  compare(difference: Difference | undefined): void {
    if (difference) this.#differences.push(difference);
  }

  row(): BenchRow {
    const sum = (values: Iterable<number>): number => [...values].reduce((a, b) => a + b, 0);
    // Seconds a token, because a first step of several tokens leaves fewer to be timed.
    const ratios = Array.from(this.#own, (own, i) => this.#plain[i] / this.#plainTokens[i] / (own / this.#tokens[i])).sort((a, b) => a - b);
    const steps = sum(this.#summaries.map(({ numSteps }) => numSteps));
    const depth = Math.max(0, ...this.#summaries.map(({ numDraftsPerPos }) => numDraftsPerPos.length));
    const at = (pick: (summary: SpeculationSummary) => readonly number[], i: number): number =>
      sum(this.#summaries.map((summary) => pick(summary)[i] ?? 0));
    const lossy = this.#entry.verifier?.lossless === false;
    const different = this.#differences.length > 0;
    return {
      drafter: this.#entry.name,
      task: this.#task,
      tokensPerStep: sum(this.#summaries.map(({ numTokens }) => numTokens)) / steps,
      acceptanceByPosition: Array.from(
        { length: depth },
        (_, i) => at(({ numAcceptedTokensPerPos }) => numAcceptedTokensPerPos, i) / at(({ numDraftsPerPos }) => numDraftsPerPos, i),
      ),
      draftsPerStep: sum(this.#summaries.map(({ numDraftTokens }) => numDraftTokens)) / steps,
      draftMilliseconds: (1000 * sum(this.#summaries.map(({ seconds }) => seconds.draft))) / steps,
      tokensPerSecond: sum(this.#tokens) / sum(this.#own),
      plainTokensPerSecond: sum(this.#plainTokens) / sum(this.#plain),
      speedup: ratios[Math.floor((ratios.length - 1) / 2)],
      speedupRange: [ratios[0], ratios[ratios.length - 1]],
      lossless: lossy
        ? "lossy"
        : this.hasOtherDraws
          ? "law"
          : !different
            ? "yes"
            : this.#differences.every(({ isTie }) => isTie)
              ? "tie"
              : "no",
      differences: this.#differences,
      numTexts: this.#numTexts,
      numTokens: Math.round(sum(this.#tokens) / this.#tokens.length),
    };
  }
}
