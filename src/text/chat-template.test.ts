import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { FormatError, UsageError } from "../base/errors.ts";
import { ChatFormat, type ChatMessage } from "./chat-template.ts";
import { formatDate } from "./date-format.ts";
import { ChatTemplate } from "./load-chat-template.ts";
import { loadTokenizer } from "./load-tokenizer.ts";

const root = fileURLToPath(new URL("../../test/golden/chat-templates", import.meta.url));
const user = (content: string): ChatMessage[] => [{ role: "user", content }];

interface Golden {
  conversations: Record<string, ChatMessage[]>;
  cases: {
    conversation: string;
    options: Record<string, unknown>;
    text?: string;
    ids?: number[];
    assistantMask?: number[];
    error?: string;
  }[];
}

describe.each(readdirSync(root))("%s equals transformers", (name) => {
  const golden = JSON.parse(readFileSync(join(root, name, "expected.json"), "utf8")) as Golden;
  const template = ChatTemplate.load(join(root, name)) as ChatTemplate;
  const tokenizer = loadTokenizer(join(root, name));

  test.each(golden.cases.map((sample, i) => [i, sample] as const))("case %i", (_, sample) => {
    const { add_generation_prompt, continue_final_message, tools, ...variables } = sample.options;
    const options = {
      addGenerationPrompt: add_generation_prompt === true,
      continueFinalMessage: continue_final_message === true,
      ...(Array.isArray(tools) && { tools }),
      variables,
    };
    const messages = golden.conversations[sample.conversation];
    if (sample.error !== undefined) {
      expect(() => template.render(messages, options)).toThrow(UsageError);
      return;
    }
    expect(template.render(messages, options)).toBe(sample.text);
    const { ids, assistantMask } = template.encode(tokenizer, messages, options);
    expect([...ids]).toEqual(sample.ids);
    if (sample.assistantMask) expect([...assistantMask]).toEqual(sample.assistantMask);
  });
});

describe("broken templates name their line", () => {
  const problem = (source: string): string => {
    try {
      new ChatFormat(source, { name: "mine" }).render(user("x"));
    } catch (error) {
      expect(error).toBeInstanceOf(FormatError);
      return (error as Error).message;
    }
    return "";
  };

  test.each([
    ["a\n{% if messages %}\nb\n{% endfor %}", 4],
    ["{# c #}\n\n{{ messages[0 }}", 3],
    ["{% for m in messages %}\n{{ m.role }}\n{% nonsense %}\n{% endfor %}", 3],
    ["x\n{{ '}}' }}\n{{ 'a\\q' }}\ny", 3],
    ["{{ 'ok' }}\n{% for m in messages %}\ntext\n{{ m.role | nothing }}{% endfor %}", 4],
    ["{% if false %}{{ a }}\n{% elif true %}\n{{ missing() }}\n{% endif %}", 3],
    ["{% if false %}\n{% else %}\n{% set x = 1 %}\n{{ x() }}\n{% endif %}", 4],
    ["{% macro f(a) %}\n{{ a() }}\n{% endmacro %}\n{{ f(1) }}", 2],
  ])("%j", (source, line) => {
    expect(problem(source)).toMatch(new RegExp(`^mine: line ${line}: `));
  });
});

describe("bounds", () => {
  const render = (source: string) => new ChatFormat(source).render(user("x"));
  test.each([
    ["steps", "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}"],
    ["numbers", "{{ range(100000000) | length }}"],
    ["growing texts", "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}"],
    ["growing lists", "{% set ns = namespace(s=[1,2,3]) %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"],
    ["calls", "{% macro f(a) %}{{ f(a) }}{% endmacro %}{{ f(1) }}"],
  ])("%s", (_, source) => {
    expect(() => render(source)).toThrow(FormatError);
  });

  test("sizes", () => {
    expect(() => new ChatFormat("x".repeat(300_000))).toThrow(/expected at most/);
    expect(() => new ChatFormat(" ".repeat(5000))).toThrow(/expected at most/);
    expect(() => new ChatFormat("{{ (".repeat(20_000))).toThrow(FormatError);
  });

  test("no way out to JavaScript", () => {
    for (const source of ["{{ messages.constructor }}", "{{ ''.constructor('x')() }}", "{{ process }}", "{{ messages.__proto__ }}"]) {
      expect(() => render(source)).not.toThrow(/process\.|native code/);
    }
  });
});

describe("what surrounds a template", () => {
  const source =
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content | trim }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
  const format = new ChatFormat(source);
  const messages = [...user("hi"), { role: "assistant", content: "yes " }];

  test("generated ranges", () => {
    const { text, generated } = format.renderMarked(messages);
    expect(text).toBe("<user>hi<assistant>yes </s>");
    expect(generated.map(([start, end]) => text.slice(start, end))).toEqual(["yes </s>"]);
  });

  test("a message that is continued", () => {
    expect(format.render(messages, { continueFinalMessage: true })).toBe("<user>hi<assistant>yes ");
    expect(format.render(user(" hi "), { continueFinalMessage: true })).toBe("<user>hi");
    expect(format.renderMarked(messages, { continueFinalMessage: true }).generated).toEqual([[19, 23]]);
    expect(() => format.render(messages, { continueFinalMessage: true, addGenerationPrompt: true })).toThrow(UsageError);
    expect(() => new ChatFormat("nothing").render(messages, { continueFinalMessage: true })).toThrow(/cannot be continued|last message/);
  });

  test("dates, exceptions and tokens", () => {
    const dated = new ChatFormat("{{ bos_token }}{{ strftime_now('%d %b %Y') }}", { tokens: { bos_token: "<s>" } });
    expect(dated.render([], { now: new Date(2024, 6, 4) })).toBe("<s>04 Jul 2024");
    expect(() => new ChatFormat("{{ raise_exception('no system') }}", { name: "t" }).render([])).toThrow(/^t: no system$/);
    expect(formatDate(new Date(2023, 0, 5, 13, 7, 9), "%-d/%m/%y %A %B %j %I:%M:%S %p %F %% %Q")).toBe(
      "5/01/23 Thursday January 005 01:07:09 PM 2023-01-05 % %Q",
    );
  });
});

describe("where templates come from", () => {
  const directory = mkdtempSync(join(tmpdir(), "longwave-chat-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const named = [
    { name: "default", template: "plain" },
    { name: "tool_use", template: "tools of {{ eos_token }}" },
    { name: "rag", template: "{% if %}" },
  ];

  test("a list of named templates", () => {
    const template = ChatTemplate.fromConfig({ chat_template: named, eos_token: { content: "</s>" } }) as ChatTemplate;
    expect(template.names).toEqual(["default", "tool_use", "rag"]);
    expect(template.render(user("x"))).toBe("plain");
    expect(template.render(user("x"), { tools: [{}] })).toBe("tools of </s>");
    expect(() => template.render(user("x"), { template: "tooluse" })).toThrow(UsageError);
    expect(() => template.render(user("x"), { template: "rag" })).toThrow(/chat template \(rag\): line 1/);
  });

  test("files win over the configuration", () => {
    expect(ChatTemplate.load(directory)).toBeUndefined();
    writeFileSync(join(directory, "tokenizer_config.json"), JSON.stringify({ chat_template: "old" }));
    expect(ChatTemplate.load(directory)?.render([])).toBe("old");
    expect(ChatTemplate.load(join(directory, "tokenizer_config.json"))?.render([])).toBe("old");
    writeFileSync(join(directory, "chat_template.jinja"), "new");
    mkdirSync(join(directory, "additional_chat_templates"));
    writeFileSync(join(directory, "additional_chat_templates", "rag.jinja"), "rag");
    expect(ChatTemplate.load(directory)?.render([])).toBe("new");
    expect(ChatTemplate.load(directory)?.render([], { template: "rag" })).toBe("rag");
    writeFileSync(join(directory, "tokenizer_config.json"), JSON.stringify({ chat_template: [1] }));
    expect(() => ChatTemplate.load(directory)).toThrow(FormatError);
  });
});
