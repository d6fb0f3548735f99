// Speculative decoding of one sequence: draft → verify → accept → commit. The cache holds all committed tokens but the last, which is the
// root of the next tree; one call of the target gives it and all drafts their rows; the verifier picks a path and one more token.
import { invariant, UsageError } from "../base/errors.ts";
import { streamId } from "../runtime/rng.ts";
import type { DraftContext, Drafter } from "./drafter.ts";
import type { GenerateOptions, GenerationEvent } from "./generate.ts";
import type { DecoderRunner } from "./runner.ts";
import type { TargetRows } from "./runner-calls.ts";
import type { Distribution } from "./sampling/distribution.ts";
import { tokenUniform } from "./sampling/sample.ts";
import type { Sequence } from "./sequence.ts";
import { SpeculationMetrics } from "./speculation-metrics.ts";
import { SequenceView } from "./target-view.ts";
import { clipTree, type TokenTree } from "./token-tree.ts";
import { greedyVerifier } from "./verifiers/greedy.ts";
import { tokenMatchVerifier } from "./verifiers/token-match.ts";
import type { Chance } from "./verifiers/verifier.ts";

/** One step, for those who look on. All of it is overwritten by the next one. */
export interface SpeculationStep {
  readonly tree: TokenTree;
  /** Nodes of the accepted path, root first; `numAccepted` + 1 of them count. */
  readonly path: Int32Array;
  readonly numAccepted: number;
  /** The token after the path. */
  readonly token: number;
  readonly rows: TargetRows;
  /** Committed ids before the step: `numIds` of them. */
  readonly ids: Int32Array;
  readonly numIds: number;
}

const verificationStream = streamId("verification");

interface SpeculateOptions extends GenerateOptions {
  /** Gives the event loop its turns and sees aborts. */
  breathe: () => Promise<void>;
}

/** Events of one sequence over row 0 of a runner, which is empty. @throws UsageError for a drafter or verifier that does not fit. */
export async function* speculate(
  runner: DecoderRunner,
  sequence: Sequence,
  drafter: Drafter,
  { verifier, tokenizer, breathe, onStep, signal }: SpeculateOptions,
): AsyncGenerator<GenerationEvent> {
  const { processor, key, ids } = sequence;
  const rules = verifier ?? (processor.greedy ? greedyVerifier : tokenMatchVerifier);
  if (rules === greedyVerifier && !processor.greedy)
    throw new UsageError("verifier greedy: expected greedy decoding, got sampling", {
      hint: "Set doSample to false, or sample with token-match.",
    });
  runner.provide(drafter.needs);
  drafter.begin({ config: runner.config, tokenizerHash: tokenizer?.hash });
  await prefill(runner, sequence, drafter, signal);
  if (sequence.count >= sequence.limit) {
    yield* sequence.end();
    return;
  }
  const metrics = new SpeculationMetrics();
  const view = new SequenceView(sequence, runner.config.vocabSize);
  const chance = new SequenceChance(sequence);
  const path = new Int32Array(sequence.limit + 1);
  const { cache, costs } = runner;
  const context = { ids, numIds: 0, promptLength: sequence.prompt.length, maxNodes: 0, maxDepth: 0, processor, key, cache, row: 0, costs };
  while (!sequence.finished) {
    await breathe();
    const prepared = runner.prepare(0, { signal, drafts: true });
    if (prepared) await prepared;
    const [start, numIds] = [sequence.count - 1, sequence.count];
    const startedAt = performance.now();
    const tree = propose(runner, sequence, drafter, context);
    const { shape } = tree;
    const proposedAt = performance.now();
    const rows = runner.appendTree(0, shape, tree.ids);
    const ranAt = performance.now();
    costs.observe(shape.size, ranAt - proposedAt);
    view.load(tree, rows.logits);
    chance.begin();
    const { node, token } = view.upToDeadEnd(rules.verify(tree, view, chance));
    const numAccepted = shape.pathTo(node, path) - 1;
    if (numAccepted === 0) cache.truncate(0, start + 1);
    else cache.gatherRows(0, start, path.subarray(0, numAccepted + 1));
    drafter.observe({ path, numAccepted, token, rows });
    onStep?.({ tree, path, numAccepted, token, rows, ids, numIds });
    const events: GenerationEvent[] = [];
    for (let i = 0; i <= numAccepted && !sequence.finished; i++) {
      const id = i < numAccepted ? tree.ids[path[i + 1]] : token;
      for (const event of sequence.commit(id, view.logits(path[i]))) events.push(event);
    }
    // What was drafted behind the end is no part of the sequence.
    if (cache.lengths[0] > sequence.count) cache.truncate(0, sequence.count);
    metrics.step(shape.size - 1, shape.maxDepth, numAccepted, sequence.count - numIds);
    metrics.time(proposedAt - startedAt, ranAt - proposedAt, performance.now() - ranAt);
    for (const event of events) yield event.kind === "finish" ? { ...event, speculation: metrics.summary() } : event;
  }
}

/** All of the prompt but its last token, the first root. */
async function prefill(runner: DecoderRunner, sequence: Sequence, drafter: Drafter, signal: AbortSignal | undefined): Promise<void> {
  const { prompt } = sequence;
  const end = prompt.length - 1;
  // The last token belongs to the prompt, whatever call it comes in.
  const options = { promptLength: prompt.length, signal };
  if (!drafter.needs.prompt) {
    const from = runner.cache.lengths[0];
    if (from >= end) return;
    const started = performance.now();
    await runner.prefillAsync(0, prompt.subarray(from, end), options);
    runner.costs.observePrompt(end - from, performance.now() - started);
    return;
  }
  // A drafter that reads the prompt's rows needs them computed.
  runner.reset(0);
  for (let from = 0; from < end; from += runner.prefillChunk) {
    const ids = prompt.subarray(from, Math.min(end, from + runner.prefillChunk));
    const rows = await runner.appendRowsAsync(0, ids, options);
    drafter.observePrompt?.(ids, rows);
  }
}

type MutableContext = { -readonly [K in keyof DraftContext]: DraftContext[K] };

/** The drafter's tree, cut to what the limit and the cache have room for. */
function propose(runner: DecoderRunner, sequence: Sequence, drafter: Drafter, context: MutableContext): TokenTree {
  context.numIds = sequence.count;
  // A step commits one token more than it accepts.
  context.maxDepth = Math.min(sequence.limit - sequence.count - 1, runner.maxTreeDepth(0));
  context.maxNodes = Math.min(runner.capacity - sequence.count + 1, runner.prefillChunk);
  // A call of more tokens than a block would round differently.
  if (runner.exactBlock > 0) context.maxNodes = Math.min(context.maxNodes, runner.exactBlock);
  const tree = clipTree(drafter.propose(context), context.maxNodes, context.maxDepth);
  invariant(tree.ids[0] === sequence.last, `drafter ${drafter.name}: the root of its tree is not the last token`);
  return tree;
}

/** Uniforms that depend on seed, request and place alone. Draws are those of plain decoding; acceptance tests have a stream of their own. */
class SequenceChance implements Chance {
  readonly #sequence: Sequence;
  readonly #acceptanceKey: { seed: number; request?: number; stream: number };
  #numTests = 0;

  constructor(sequence: Sequence) {
    this.#sequence = sequence;
    this.#acceptanceKey = { ...sequence.key, stream: verificationStream };
  }

  /** A step begins: no other one has this count of tokens. */
  begin(): void {
    this.#numTests = 0;
  }

  accept(probability: number): boolean {
    return tokenUniform(this.#acceptanceKey, this.#sequence.count, this.#numTests++) < probability;
  }

  draw(distribution: Distribution, depth: number): number {
    return distribution.sample(tokenUniform(this.#sequence.key, this.#sequence.count + depth));
  }
}
