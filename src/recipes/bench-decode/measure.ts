// One text, plain or with a drafter, and how long its steps took: the prompt and the step that gave the first token do not count, because
// reading a prompt costs the same with every drafter.
import type { Drafter } from "../../decode/drafter.ts";
import { type FinishEvent, type GenerationRequest, generate } from "../../decode/generate.ts";
import type { DecoderRunner } from "../../decode/runner.ts";
import type { SpeculationSummary } from "../../decode/speculation-metrics.ts";
import { TreeShape } from "../../decode/token-tree.ts";
import type { Verifier } from "../../decode/verifiers/verifier.ts";

export interface Measured {
  readonly ids: readonly number[];
  /** Tokens after the first step, and the seconds that they took. */
  readonly tokens: number;
  readonly seconds: number;
  readonly speculation: SpeculationSummary | undefined;
}

export interface MeasureSetup {
  drafter?: Drafter;
  verifier?: Verifier;
  signal?: AbortSignal;
}

export async function measureText(runner: DecoderRunner, request: GenerationRequest, setup: MeasureSetup = {}): Promise<Measured> {
  let firstStep = 1;
  let steps = 0;
  let startedAt = 0;
  let seen = 0;
  let finish: FinishEvent | undefined;
  const onStep = ({ numAccepted }: { numAccepted: number }): void => {
    if (steps++ === 0) firstStep = numAccepted + 1;
  };
  for await (const event of generate(runner, [request], { ...setup, onStep })) {
    if (event.kind === "finish") finish = event;
    else if (event.kind === "token" && ++seen === firstStep) startedAt = performance.now();
  }
  const seconds = startedAt === 0 ? 0 : (performance.now() - startedAt) / 1000;
  const ids = (finish as FinishEvent).ids;
  return { ids, tokens: Math.max(0, ids.length - firstStep), seconds, speculation: (finish as FinishEvent).speculation };
}

/** Where a text first differs from the plain one, and how near the two tokens were for the model. */
export interface Difference {
  readonly position: number;
  /** Logit of the plain text's token less that of the other: 0 is a tie. */
  readonly logitGap: number;
  /** How much that gap changes with the number of tokens in the call. */
  readonly rounding: number;
  /** The gap is within that rounding: both tokens are as probable as the model can tell. */
  readonly isTie: boolean;
}

/** Logits that differ by less come from products of another size, whatever the weights. */
const leastRounding = 1e-3;
/** Sizes of the call that the gap is computed in. */
const callSizes = [1, 2, 4, 8];

/** @param plain greedy ids after the prompt. */
export function compareTexts(
  runner: DecoderRunner,
  prompt: ArrayLike<number>,
  plain: readonly number[],
  other: readonly number[],
): Difference | undefined {
  let position = 0;
  while (position < plain.length && plain[position] === other[position]) position++;
  if (position === plain.length && plain.length === other.length) return undefined;
  const ids = [...Array.from(prompt), ...plain.slice(0, position)];
  const { vocabSize } = runner.config;
  // The other text ended here, or this one did: the end token is not part of either, and there is nothing to compare.
  const [a, b] = [plain[position], other[position]];
  if (a === undefined || b === undefined) return { position, logitGap: Number.NaN, rounding: Number.NaN, isTie: false };
  const gaps = callSizes
    .filter((size) => size < ids.length)
    .map((size) => {
      runner.reset(0);
      runner.prefill(0, ids, ids.length - size);
      const { logits } = runner.appendTree(0, TreeShape.chain(size - 1), ids.slice(-size));
      const row = logits.subarray((size - 1) * vocabSize, size * vocabSize);
      return row[a] - row[b];
    });
  const logitGap = gaps[0];
  const rounding = Math.max(...gaps) - Math.min(...gaps);
  return { position, logitGap, rounding, isTie: Math.abs(logitGap) <= 2 * rounding + leastRounding };
}
