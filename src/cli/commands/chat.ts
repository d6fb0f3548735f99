// `longwave chat <model>`: a conversation in the terminal. Lines from a pipe are asked one after the other.
import { readFileSync } from "node:fs";
import { createInterface, type Interface } from "node:readline";
import { Writable } from "node:stream";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic.ts";
import { AbortedError, DataError, LongwaveError, UsageError } from "../../base/errors.ts";
import { samplingOptions } from "../../decode/sampling/options.ts";
import type { Conversation } from "../../recipes/text-model/conversation.ts";
import type { TextResult } from "../../recipes/text-model/text-model.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { speculationText, speedText } from "../render/speed.ts";
import { grouped, modelFields, openTextModel, samplingFields, speculationFields } from "../text-model-flags.ts";

const schema = z.object({
  ...modelFields,
  ...grouped("Conversation", {
    system: z.string().default("").describe("What the model is told first. Default: what its chat template says."),
    whenFull: z
      .enum(["drop-oldest", "stop"])
      .default("drop-oldest")
      .describe("When the context is full: let the oldest question and answer go, or stop with an error."),
  }),
  ...grouped("Length", {
    maxNewTokens: z.int().min(1).default(512).describe("Tokens of an answer at most.").meta({ short: "n" }),
    stop: z.array(z.string().min(1)).default([]).describe("Text that ends an answer; may be given several times."),
  }),
  ...grouped("Sampling", { seed: z.int().nonnegative().default(0).describe("Same seed and questions, same answers.") }),
  ...samplingFields,
  ...speculationFields,
});

const help = `/help            this list
/reset           forget the conversation; the system message stays
/system <text>   what the model is told first; without text: nothing
/undo            take back the last question and answer
/retry           answer the last question anew, with another seed
/history         show the conversation
/stats           speed of the last answer: reading, first token, writing
/save <file>     write the conversation as JSON
/load <file>     go on with a conversation from a file
/quit            leave (or Ctrl-D; /exit and /bye are the same)
Ctrl-C stops an answer. At the prompt it clears what was typed; twice on an empty line it leaves.
End a line with \\ to go on in the next one.`;

export const chat = defineCommand({
  name: "chat",
  summary: "Talk with a model in the terminal",
  description:
    "Needs a model with a chat template. Commands begin with a slash; /help lists them. Ctrl-C stops an answer; at the prompt it clears the line, and twice on an empty line it leaves, as Ctrl-D and /quit do.",
  schema,
  positionals: ["model"],
  examples: [
    { command: "chat models/SmolLM2-135M-Instruct.gguf --temperature 0.7 --top-p 0.9", note: "from a GGUF file" },
    { command: "chat models/smol.gguf --speculate lookup --no-do-sample", note: "with drafts from the text so far" },
  ],
  run: async (options, context) => {
    const { system, maxNewTokens, stop, seed, whenFull } = options;
    const sampling = Object.fromEntries(Object.keys(samplingOptions.shape).map((name) => [name, options[name as keyof typeof options]]));
    using model = await openTextModel(options, context);
    const { Conversation } = await import("../../recipes/text-model/conversation.ts");
    const conversation = new Conversation(model, { system, whenFull });
    model.chatIds([{ role: "user", content: "" }]);
    const isTerminal = context.stdin.isTTY === true && context.stdout.isTTY;
    const lines = createInterface({ input: context.stdin, ...(isTerminal ? { output: terminalOf(context.stdout), terminal: true } : {}) });
    const session = new Session(conversation, context, lines, isTerminal, (signal, attempt) => ({
      maxNewTokens,
      stop,
      sampling,
      seed: seed + attempt,
      signal,
    }));
    if (isTerminal) {
      const { colors } = context.stdout;
      context.print(
        colors.dim(
          `${options.model}, context of ${model.runner.capacity} tokens. /help lists commands, Ctrl-C stops an answer, /quit leaves.`,
        ),
      );
    }
    // Also while nothing is being written, a signal ends the chat.
    const close = (): void => lines.close();
    context.signal.addEventListener("abort", close);
    try {
      await session.run();
      context.signal.throwIfAborted();
    } finally {
      context.signal.removeEventListener("abort", close);
      close();
    }
  },
});

/** What readline draws its line on. */
function terminalOf(output: CommandContext["stdout"]): Writable {
  const stream = new Writable({
    decodeStrings: false,
    write: (chunk, _encoding, done) => {
      output.write(String(chunk));
      done();
    },
  });
  return Object.defineProperty(stream, "columns", { get: () => output.columns });
}

type AnswerOptions = (signal: AbortSignal, attempt: number) => Parameters<Conversation["ask"]>[1];

class Session {
  readonly #conversation: Conversation;
  readonly #context: CommandContext;
  readonly #lines: Interface;
  readonly #isTerminal: boolean;
  readonly #answerOptions: AnswerOptions;
  #answering: AbortController | undefined;
  #attempt = 0;
  #last: TextResult | undefined;
  /** Lines that ended with a backslash. */
  #pending = "";
  /** Ctrl-C was pressed on an empty line, and nothing since. */
  #isLeaving = false;

  constructor(conversation: Conversation, context: CommandContext, lines: Interface, isTerminal: boolean, answerOptions: AnswerOptions) {
    this.#conversation = conversation;
    this.#context = context;
    this.#lines = lines;
    this.#isTerminal = isTerminal;
    this.#answerOptions = answerOptions;
  }

  async run(): Promise<void> {
    const { colors } = this.#context.stdout;
    this.#lines.on("SIGINT", () => this.#interrupt());
    this.#prompt(colors.cyan("> "));
    for await (const line of this.#lines) {
      this.#context.signal.throwIfAborted();
      this.#isLeaving = false;
      if (line.endsWith("\\")) {
        this.#pending += `${line.slice(0, -1)}\n`;
        this.#prompt(colors.dim(". "));
        continue;
      }
      const text = (this.#pending + line).trim();
      this.#pending = "";
      if (text.startsWith("/")) {
        if (await this.#command(text)) break;
      } else if (text !== "") await this.#answer(text);
      this.#prompt(colors.cyan("> "));
    }
  }

  #prompt(text: string): void {
    if (!this.#isTerminal) return;
    this.#lines.setPrompt(text);
    this.#lines.prompt();
  }

  /** Ctrl-C: stops an answer, else takes back what was typed, else leaves when it is the second one. */
  #interrupt(): void {
    const { stdout } = this.#context;
    if (this.#answering) {
      this.#answering.abort(new AbortedError("chat: the answer was stopped"));
      return;
    }
    const isEmpty = this.#lines.line === "" && this.#pending === "";
    if (isEmpty && this.#isLeaving) {
      this.#lines.close();
      return;
    }
    this.#isLeaving = isEmpty;
    this.#pending = "";
    // To the end of the line and from there back to its beginning, as the keys of readline have it.
    this.#lines.write(null, { ctrl: true, name: "e" });
    this.#lines.write(null, { ctrl: true, name: "u" });
    stdout.write(isEmpty ? "\n(Ctrl-C once more, Ctrl-D or /quit leaves)\n" : "\n");
    this.#prompt(stdout.colors.cyan("> "));
  }

  async #answer(question: string): Promise<void> {
    const { stdout, stderr, signal } = this.#context;
    this.#answering = new AbortController();
    const dropped = this.#conversation.numDropped;
    const joined = AbortSignal.any([this.#answering.signal, signal]);
    try {
      for await (const piece of this.#conversation.ask(question, this.#answerOptions(joined, this.#attempt))) stdout.write(piece);
      stdout.write("\n");
      this.#last = this.#conversation.lastResult;
      if (this.#last?.reason === "context") stderr.write("(the context is full: the answer ends here)\n");
      if (this.#last?.reason === "length") stderr.write("(cut at --max-new-tokens)\n");
    } catch (error) {
      if (this.#answering.signal.aborted && !signal.aborted) {
        this.#last = this.#conversation.lastResult;
        stdout.write("\n(stopped)\n");
      } else if (error instanceof LongwaveError && !(error instanceof AbortedError) && this.#isTerminal)
        stderr.write(`${error.message}${error.hint ? `. ${error.hint}` : ""}\n`);
      else throw error;
    } finally {
      this.#answering = undefined;
    }
    if (this.#conversation.numDropped > dropped)
      stderr.write(`(the context was full: ${this.#conversation.numDropped - dropped} oldest messages were left out)\n`);
  }

  /** True when the chat ends. */
  async #command(text: string): Promise<boolean> {
    const [name, ...words] = text.split(" ");
    const rest = words.join(" ").trim();
    const say = (line: string): void => this.#context.print(line);
    const conversation = this.#conversation;
    switch (name) {
      case "/exit":
      case "/quit":
      case "/bye":
        return true;
      case "/help":
        say(help);
        return false;
      case "/reset":
        conversation.reset();
        say("(forgotten)");
        return false;
      case "/system":
        conversation.setSystem(rest);
        return false;
      case "/undo":
        say(conversation.undo() ? "(taken back)" : "(nothing to take back)");
        return false;
      case "/retry": {
        const question = conversation.messages.findLast(({ role }) => role === "user")?.content;
        if (typeof question !== "string") say("(nothing was asked yet)");
        else {
          conversation.undo();
          this.#attempt++;
          await this.#answer(question);
        }
        return false;
      }
      case "/history":
        for (const { role, content } of conversation.messages) say(`${role}: ${content}`);
        return false;
      case "/stats":
        say(this.#last ? statistics(this.#last) : "(no answer yet)");
        return false;
      case "/save":
      case "/load":
        try {
          this.#file(name, rest);
        } catch (error) {
          if (!(error instanceof LongwaveError) || !this.#isTerminal) throw error;
          this.#context.stderr.write(`${error.message}\n`);
        }
        return false;
      default:
        this.#context.stderr.write(`chat: expected one of the commands that /help lists, got ${name}\n`);
        return false;
    }
  }

  #file(name: string, path: string): void {
    if (path === "") throw new UsageError(`chat: expected ${name} <file>, got no file`);
    if (name === "/save") {
      writeFileAtomic(path, `${JSON.stringify(this.#conversation.messages, null, 2)}\n`);
      this.#context.print(`(${this.#conversation.messages.length} messages in ${path})`);
      return;
    }
    const messages = readMessages(path);
    this.#conversation.messages.splice(0, this.#conversation.messages.length, ...messages);
    this.#context.print(`(${messages.length} messages from ${path})`);
  }
}

const messagesSchema = z.array(z.object({ role: z.enum(["system", "user", "assistant"]), content: z.string() }));

/** @throws DataError for a file that holds no conversation. */
function readMessages(path: string): z.output<typeof messagesSchema> {
  try {
    return messagesSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch (cause) {
    throw new DataError(`${path}: expected a conversation that /save wrote, got none`, { hint: "Check the path.", cause });
  }
}

/** What an answer cost, in one line. */
export function statistics({ cachedTokens, speed, reason, speculation }: TextResult): string {
  const parts = [speedText(speed, cachedTokens) + (reason === "aborted" ? ", then stopped" : "")];
  if (speculation) parts.push(speculationText(speculation));
  return parts.join("; ");
}
