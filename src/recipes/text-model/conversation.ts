// A conversation with a model: history, what happens when the context is full, and answers that can be stopped without losing the rest.
import { UsageError } from "../../base/errors.ts";
import type { ChatMessage } from "../../text/index.ts";
import type { TextModel, TextOptions, TextResult } from "./text-model.ts";

/** drop-oldest: the oldest question and answer leave, the system message stays; stop: an error says so. */
export const fullContextPolicies = ["drop-oldest", "stop"] as const;
export type FullContextPolicy = (typeof fullContextPolicies)[number];

export interface ConversationOptions {
  /** What the model is told first. Default: what its template says. */
  system?: string;
  /** When question, history and answer no longer fit. Default drop-oldest. */
  whenFull?: FullContextPolicy;
  /** Tokens kept free for an answer. Default: a quarter of the context, at most 512. */
  reserve?: number;
}

export class Conversation {
  readonly messages: ChatMessage[] = [];
  readonly whenFull: FullContextPolicy;
  /** Messages that left because the context was full. */
  numDropped = 0;
  readonly #model: TextModel;
  readonly #reserve: number;

  constructor(model: TextModel, { system, whenFull = "drop-oldest", reserve }: ConversationOptions = {}) {
    this.#model = model;
    this.whenFull = whenFull;
    this.#reserve = reserve ?? Math.min(512, Math.floor(model.runner.capacity / 4));
    if (system !== undefined && system !== "") this.messages.push({ role: "system", content: system });
  }

  /**
   * The answer, piece by piece; it joins the history, also when it is stopped half-way.
   * @throws UsageError when a question does not fit even alone, or the context is full under `whenFull: "stop"`; the history is then as before.
   */
  async *ask(question: string, options: TextOptions = {}): AsyncGenerator<string> {
    const [before, droppedBefore] = [[...this.messages], this.numDropped];
    this.messages.push({ role: "user", content: question });
    let ids: Int32Array;
    try {
      ids = this.#fit();
    } catch (error) {
      this.messages.splice(0, this.messages.length, ...before);
      this.numDropped = droppedBefore;
      throw error;
    }
    let answer = "";
    try {
      for await (const piece of this.#model.generate(ids, options)) {
        answer += piece;
        yield piece;
      }
    } finally {
      this.messages.push({ role: "assistant", content: answer.trimEnd() });
    }
  }

  get lastResult(): TextResult | undefined {
    return this.#model.lastResult;
  }

  /** Takes back the last question and its answer. False when there is none. */
  undo(): boolean {
    const at = this.messages.findLastIndex(({ role }) => role === "user");
    if (at < 0) return false;
    this.messages.length = at;
    return true;
  }

  /** Forgets everything but the system message. */
  reset(): void {
    const [first] = this.messages;
    this.messages.length = 0;
    if (first?.role === "system") this.messages.push(first);
  }

  /** Sets or replaces the system message; an empty text removes it. */
  setSystem(text: string): void {
    if (this.messages[0]?.role === "system") this.messages.shift();
    if (text !== "") this.messages.unshift({ role: "system", content: text });
  }

  #fit(): Int32Array {
    const { capacity } = this.#model.runner;
    for (;;) {
      const ids = this.#model.chatIds(this.messages);
      if (ids.length + this.#reserve <= capacity) return ids;
      const first = this.messages[0]?.role === "system" ? 1 : 0;
      const last = this.messages.length - 1;
      const next = this.messages.findIndex(({ role }, i) => i > first && role === "user");
      if (this.whenFull === "stop" || next < 0 || next > last) {
        // A long question may use the room of its answer.
        if (first === last && ids.length < capacity) return ids;
        throw new UsageError(`chat: expected at most ${capacity - this.#reserve} tokens of conversation, got ${ids.length}`, {
          hint:
            this.whenFull === "stop"
              ? "Start anew with /reset, or choose --when-full drop-oldest."
              : "Ask something shorter, or give a larger --context.",
        });
      }
      this.numDropped += next - first;
      this.messages.splice(first, next - first);
    }
  }
}
