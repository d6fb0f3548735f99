// models/chat-templates: conversations rendered by a model's template, by transformers' apply_chat_template.

import { dirname } from "node:path";
import { LongwaveError } from "../../../src/base/errors.ts";
import { type ChatMessage, type ChatOptions, ChatTemplate, loadTokenizer } from "../../../src/text/index.ts";
import type { Comparison } from "../compare.ts";
import { asIntegers, asList, asObject, asObjects, asText, type Fields, shorten } from "../fields.ts";
import type { Folder } from "../folder.ts";
import { type GoldenCase, type GoldenKind, lazy } from "../kind.ts";

export const kind: GoldenKind = {
  recognise(folder) {
    if (!folder.has("expected.json", "tokenizer_config.json")) return [];
    const expected = folder.peek("expected.json") ?? {};
    if (!("conversations" in expected && "cases" in expected) && folder.parentName !== "chat-templates") return [];
    return [{ name: "", files: ["expected.json", "tokenizer.json", "tokenizer_config.json"], cases: () => casesOf(folder) }];
  },
};

function* casesOf(folder: Folder): Generator<GoldenCase> {
  const expected = asObject(folder.json("expected.json"), "expected.json");
  const conversations = asObject(expected.conversations, "conversations");
  const directory = dirname(folder.file("tokenizer_config.json"));
  const template = lazy(() => ChatTemplate.load(directory));
  const tokenizer = lazy(() => loadTokenizer(directory));
  for (const [i, sample] of asObjects(expected.cases, "cases").entries()) {
    const name = asText(sample.conversation, `cases[${i}].conversation`);
    const settings = asObject(sample.options, `cases[${i}].options`);
    yield {
      kind: "models/chat-templates",
      name: shorten(`${i} ${name} ${JSON.stringify(settings)}`),
      run: (comparison) => {
        const messages = asList(conversations[name], `conversations.${name}`) as ChatMessage[];
        const found = template();
        if (!found) throw new Error("tokenizer_config.json: no chat_template");
        const render = () => found.encode(tokenizer(), messages, optionsOf(settings));
        if ("error" in sample) {
          comparison.exact(`cases[${i}].error`, refusal(render), true);
          return;
        }
        compare(comparison, `cases[${i}]`, sample, { text: found.render(messages, optionsOf(settings)), ...render() });
      },
    };
  }
}

function compare(
  comparison: Comparison,
  place: string,
  sample: Fields,
  own: { text: string; ids: Int32Array; assistantMask: Uint8Array },
): void {
  comparison.exact(`${place}.text`, own.text, asText(sample.text, `${place}.text`));
  comparison.exact(`${place}.ids`, own.ids, asIntegers(sample.ids, `${place}.ids`));
  if (sample.assistantMask !== undefined)
    comparison.exact(`${place}.assistantMask`, own.assistantMask, asIntegers(sample.assistantMask, `${place}.assistantMask`));
}

/** The conversation is refused, with an error that is meant for the user. */
function refusal(render: () => unknown): boolean {
  try {
    render();
    return false;
  } catch (error) {
    if (error instanceof LongwaveError) return true;
    throw error;
  }
}

function optionsOf({ add_generation_prompt, continue_final_message, tools, documents, ...variables }: Fields): ChatOptions {
  return {
    addGenerationPrompt: add_generation_prompt === true,
    continueFinalMessage: continue_final_message === true,
    ...(Array.isArray(tools) && { tools }),
    ...(Array.isArray(documents) && { documents }),
    variables,
  };
}
