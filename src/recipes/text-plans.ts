// How the texts begin that a model writes to train its drafter: with a user's question that it draws, with prompts of one's own, or, of a model
// without a chat template, with the beginning of a text.
import { UsageError } from "../base/errors.ts";
import type { LoadedModel } from "./text-model/load-model.ts";
import type { TextPlan } from "./written-texts.ts";

/** Stands for the question while the template's words around it are found. A word that templates do not have and do not change. */
const question = "longwaveQuestion";

export interface TextPlanOptions {
  /** Prompts of one's own, one after another and again from the first. Default: none. */
  readonly prompts?: readonly string[];
  /** Say prompts as a user's turn and let the model draw such turns. Default: where the model has a chat template. */
  readonly chat?: boolean;
  /** Tokens of a drawn opening at most. Openings of a plain text have half as many to that many. */
  readonly openingTokens: number;
}

/** @throws UsageError for a model that has neither a chat template nor a token that begins a text. */
export function textPlans(
  model: Pick<LoadedModel, "tokenizer" | "chatTemplate" | "name">,
  options: TextPlanOptions,
): (index: number) => TextPlan {
  const { tokenizer, chatTemplate, name } = model;
  const { prompts, openingTokens, chat = chatTemplate !== undefined } = options;
  if (chat && !chatTemplate)
    throw new UsageError(`${name}: expected a model with a chat template, got none`, { hint: "Leave --chat out." });
  const asked = (content: string): Int32Array =>
    tokenizer.encode(chatTemplate?.render([{ role: "user", content }], { addGenerationPrompt: true }) ?? "", { addSpecialTokens: false });
  if (prompts && prompts.length > 0) {
    const idsOf = chat ? asked : (prompt: string): Int32Array => tokenizer.encode(prompt);
    return (index) => ({ start: [], openingTokens: 0, promptOf: () => idsOf(prompts[index % prompts.length]) });
  }
  if (chat) {
    const around = chatTemplate?.render([{ role: "user", content: question }], { addGenerationPrompt: true }) ?? "";
    const at = around.indexOf(question);
    if (at <= 0)
      throw new UsageError(`${name}: expected a chat template that begins a user's turn with words of its own, got one without`, {
        hint: "Give questions with --prompts.",
      });
    const start = [...tokenizer.encode(around.slice(0, at), { addSpecialTokens: false })];
    return () => ({
      start,
      openingTokens,
      promptOf: (opening, ended) => {
        // One that does not come to its end has lost its way, mostly.
        const text = ended ? tokenizer.decode(opening).trim() : "";
        return text === "" ? undefined : asked(text);
      },
    });
  }
  const { bos, eos } = tokenizer.specialIds;
  const begin = bos ?? eos;
  if (begin === undefined)
    throw new UsageError("tokenizer: expected a token for the beginning of a text, to let the model write from there, got none", {
      hint: "Give beginnings with --prompts.",
    });
  // Short openings are alike, and so would be all that follows at a low temperature.
  const shortest = Math.ceil(openingTokens / 2);
  return (index) => ({
    start: [begin],
    openingTokens: shortest + (index % (openingTokens - shortest + 1)),
    promptOf: (opening, ended) => (ended ? undefined : [begin, ...opening]),
  });
}
