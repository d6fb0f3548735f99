// What drafts tokens. A drafter says what it wants to read of the target before anything is compiled; then, step by step, it proposes a
// tree below the last committed token and sees what became of it. It may be wrong at any price but time: the verifier decides.
import type { DecoderConfig } from "../models/decoder/config.ts";
import type { KVCache } from "../runtime/kv-cache.ts";
import type { TargetFeatures, TargetRows } from "./runner-calls.ts";
import type { Processor } from "./sampling/processor.ts";
import type { SamplingKey } from "./sampling/sample.ts";
import type { StepCosts } from "./step-costs.ts";
import type { TokenTree } from "./token-tree.ts";

export interface DrafterNeeds extends TargetFeatures {
  /** Rows of the prompt as well, not only of what steps commit. Default false. Such a prompt is read whole. */
  prompt?: boolean;
}

/** The model that a drafter drafts for. */
export interface DraftTarget {
  readonly config: DecoderConfig;
  /** Hash of the target's tokenizer, where there is one. */
  readonly tokenizerHash?: string;
}

/** The state of the sequence when drafts are wanted. */
export interface DraftContext {
  /** Committed ids, `numIds` of them; the last one is the root of the tree. */
  readonly ids: Int32Array;
  readonly numIds: number;
  readonly promptLength: number;
  /** A tree with more nodes (root included) or deeper is cut. */
  readonly maxNodes: number;
  readonly maxDepth: number;
  /** How the target's tokens are chosen. A drafter that draws tells the distribution after these steps. */
  readonly processor: Processor;
  /** A drafter that draws uses a stream of its own under this seed and request. */
  readonly key: SamplingKey;
  /** The target's cache and its row of this sequence: for drafters that share layers with it. */
  readonly cache: KVCache;
  readonly row: number;
  /** What the target's calls cost, as measured so far. */
  readonly costs: StepCosts;
}

/** What a step committed. Views that the next step overwrites. */
export interface StepOutcome {
  /** Nodes of the accepted path, root first: `numAccepted` + 1 of them count. */
  readonly path: Int32Array;
  readonly numAccepted: number;
  /** The token after the path: the next root. */
  readonly token: number;
  /** Rows of all nodes: row `path[i]` belongs to the i-th token of the path. */
  readonly rows: TargetRows;
}

/**
 * Who makes a drafter disposes of it: `generate`, a model or a drafter that it is handed to only uses it, so that one drafter may serve several
 * of them in turn.
 */
export interface Drafter extends Disposable {
  /** Shown in metrics and errors. */
  readonly name: string;
  readonly needs: DrafterNeeds;
  /** A new sequence for this target begins. @throws UsageError when the drafter was made for another model. */
  begin(target: DraftTarget): void;
  /** Rows of prompt tokens, in order, when `needs.prompt`. */
  observePrompt?(ids: ArrayLike<number>, rows: TargetRows): void;
  /** A tree whose root is the last committed token; of one node when there is nothing to propose. */
  propose(context: DraftContext): TokenTree;
  /** After each step. */
  observe(outcome: StepOutcome): void;
  /** Forgets the texts of earlier requests, where it keeps any. Chances that were learnt stay. */
  forget?(): void;
  /** Releases what the drafter itself opened: its programs, not the backend or other drafters that it was given. */
  dispose(): void;
}
