// Prompts of five kinds of work, in the manner of Spec-Bench (Xia et al. 2024): what speculation gains depends on how much an answer repeats of
// what was read. The texts are written for this purpose; a file of one's own prompts takes their place.
import { readFileSync } from "node:fs";
import { z } from "zod";
import { DataError } from "../../base/errors.ts";

export interface BenchPrompt {
  /** Name of the kind of work. */
  readonly task: string;
  readonly prompt: string;
}

const letter = `Dear Ms. Alvarez,
thank you for your order of 12 March. The oak table and the four chairs left our workshop on Tuesday and should reach you by the end of the week.
The lamp is out of stock. We expect a new delivery on 2 April and will send it to you then, free of charge. If you would rather have your money
back, please tell us by telephone or in writing. The invoice number is 2024-0317, and the amount already paid is 845 dollars.
Yours sincerely, Tom Becker, Harbour Furniture`;

const code = `function totalPrice(items) {
  let total = 0;
  for (const item of items) {
    if (item.quantity > 0) {
      total += item.price * item.quantity;
    }
  }
  return total;
}

function averagePrice(items) {
  const total = totalPrice(items);
  const count = items.length;
  return count === 0 ? 0 : total / count;
}`;

const article = `The town of Millbrook has decided to close its old railway bridge to cars. The bridge was built in 1904 and carries about three thousand
cars a day, twice as many as it was made for. Engineers found cracks in two of the seven pillars last autumn. Repairing them would cost four
million dollars; a new bridge would cost eleven million. The council voted six to three for a path for cyclists and walkers instead, which needs no
repair of the pillars. Cars will take the road over the dam, which is five minutes longer. Shop owners on Bridge Street fear that they will lose
customers. The mayor said that the street would become quieter and more pleasant, and that the town would review the decision in two years.`;

const table = `name: Ada, city: London, year: 1815
name: Alan, city: Manchester, year: 1912
name: Grace, city: New York, year: 1906
name: Edsger, city: Rotterdam, year: 1930
name: Barbara, city: Los Angeles, year: 1939`;

/** Three prompts of each kind. */
export const benchPrompts: readonly BenchPrompt[] = [
  { task: "conversation", prompt: "What should I see in a weekend in Rome? Give me a short plan for each day." },
  { task: "conversation", prompt: "My neighbour plays loud music at night. How can I talk to him about it without a quarrel?" },
  { task: "conversation", prompt: "Explain to a child of eight why the sky is blue." },
  { task: "summarisation", prompt: `Summarise this article in three sentences.\n\n${article}` },
  { task: "summarisation", prompt: `What is this letter about? Answer in two sentences.\n\n${letter}` },
  { task: "summarisation", prompt: `List the main facts of this text, one a line.\n\n${article}` },
  { task: "copying", prompt: `Repeat this text word for word.\n\n${letter}` },
  { task: "copying", prompt: `Repeat this code exactly, but rename the variable total to sum.\n\n${code}` },
  { task: "copying", prompt: `Write these lines again exactly as they are.\n\n${table}` },
  { task: "question answering", prompt: `${article}\n\nHow much would a new bridge cost, and who voted against cars?` },
  { task: "question answering", prompt: "Who wrote Pride and Prejudice, and what is it about?" },
  { task: "question answering", prompt: `${letter}\n\nWhen will the lamp arrive, and what does it cost?` },
  {
    task: "arithmetic",
    prompt: "A baker sells 24 rolls an hour at 2 dollars each. How much does she earn in 5 hours? Think step by step.",
  },
  { task: "arithmetic", prompt: "Tom has 3 boxes with 12 pencils each and gives 7 pencils away. How many are left? Show each step." },
  { task: "arithmetic", prompt: "Write the multiplication table of 7 from 7 x 1 to 7 x 10." },
];

const record = z.object({ prompt: z.string().min(1), task: z.string().min(1).default("prompts") });

/**
 * Prompts of a JSON-lines file with the fields `prompt` and, if wanted, `task`.
 * @throws DataError naming the line that is none.
 */
export function readBenchPrompts(path: string): BenchPrompt[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new DataError(`${path}: expected a file of prompts, got none`, { hint: "Check the path.", cause });
  }
  const prompts = text.split("\n").flatMap((line, i): BenchPrompt[] => {
    if (line.trim() === "") return [];
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      value = undefined;
    }
    const result = record.safeParse(value);
    if (!result.success)
      throw new DataError(
        `${path}: expected a JSON object with the text "prompt" in line ${i + 1}, got ${JSON.stringify(line.slice(0, 60))}`,
        {
          hint: 'Write one {"task": "…", "prompt": "…"} a line.',
        },
      );
    return [result.data];
  });
  if (prompts.length === 0) throw new DataError(`${path}: expected at least one prompt, got none`);
  return prompts;
}
